import os
import sys

import numpy as np
import psutil
import pytest

from sdsetup.cli.app import main
from sdsetup.imaging.benchmark import benchmark
from sdsetup.imaging.request import Request
from sdsetup.runtime.memory_peak import measure_memory_peak
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.worker import WorkerRunner
from tests.sdsetup import toy_package
from tests.sdsetup.imaging.test_pipeline import cpu

REQUEST = Request(prompt="a horse", seed=1, steps=4, scheduler="euler", images=2)


def test_the_numbers_add_up(tmp_path):
    package = open_for_images(toy_package.write(tmp_path / "toy_package"))
    result = benchmark(package, LocalRunner(package=package, device=cpu()), REQUEST, runs=3)
    assert result.submodels["unet"].runs == 4 * (1 + 3)
    assert result.submodels["text_encoder"].runs == 2 * (1 + 3)
    assert result.submodels["vae_decoder"].runs == 2 * (1 + 3)
    assert 0 < result.seconds_per_step * 4 / 2 <= result.seconds_per_image <= result.first_image_seconds
    assert result.peak_vram_bytes is None
    assert result.machine["provider"] == "CPUExecutionProvider"
    assert result.machine["onnxruntime"].startswith("onnxruntime")


@pytest.mark.skipif(
    sys.platform == "win32",
    reason="the Windows tests run under Wine, whose working sets say little of a process's own memory",
)
def test_the_worker_s_memory_is_what_is_watched(tmp_path):
    package = open_for_images(toy_package.write(tmp_path / "toy_package"))
    runner = WorkerRunner(package=package, device=cpu())
    ballast = np.ones(300 * 2**20, np.uint8)
    try:
        result = benchmark(package, runner, REQUEST, runs=2)
        ours = psutil.Process().memory_info().rss
    finally:
        runner.close()
    # What a process counts as its memory differs between systems; ours holds the ballast on top of it.
    assert ballast.all()
    assert 2**20 < result.peak_ram_bytes < ours


def test_a_peak_is_seen_though_it_is_over_before_the_end():
    with measure_memory_peak(cpu(), os.getpid) as peak:
        before = peak.ram_bytes
        for _ in range(20):
            np.ones(200 * 2**20, np.uint8).sum()
    assert peak.ram_bytes - before > 200 * 2**20


def test_the_command_prints_a_table_or_one_document(tmp_path, capsys):
    import json

    folder = str(toy_package.write(tmp_path / "toy_package"))
    assert main(["benchmark", folder, "--runs", "1", "--steps", "3"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "an image" in shown.err
    assert main(["benchmark", folder, "--runs", "1", "--steps", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["request"]["steps"] == 3
    assert set(document["submodels"]) == {"text_encoder", "unet", "vae_decoder"}

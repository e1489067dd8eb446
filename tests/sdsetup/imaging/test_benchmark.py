import os
import platform
import sys
from itertools import count
from statistics import median

import numpy as np
import psutil
import pytest

from conversions.events import Advanced, Finished, Started, ignore
from sdsetup import __version__
from sdsetup.cli.app import main
from sdsetup.imaging import benchmark as module
from sdsetup.imaging.benchmark import benchmark
from sdsetup.imaging.latent_noise import LatentNoise
from sdsetup.imaging.request import Request
from sdsetup.runtime.memory_peak import measure_memory_peak
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.runner_pair import RunnerPair
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
    with measure_memory_peak(cpu(), lambda: {os.getpid()}) as peak:
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


def test_the_command_plans_for_images_from_text_as_generate_does(tmp_path, capsys):
    folder = str(toy_package.write(tmp_path / "toy_package", encodes=True))
    assert main(["benchmark", folder, "--runs", "1", "--steps", "2", "--vae-tiling"]) == 0
    said = capsys.readouterr().err
    assert "vae_decoder runs in one piece" in said
    assert "vae_encoder" not in said


class Recording:
    """A runner that notes what the U-Net sees."""

    def __init__(self, runner):
        self._runner, self.samples = runner, []

    def __getattr__(self, name):
        return getattr(self._runner, name)

    def run(self, submodel, inputs):
        if submodel == "unet":
            self.samples.append(inputs["sample"])
        return self._runner.run(submodel, inputs)


def benchmarked(folder, monkeypatch, listener=ignore):
    """Time three batches by a clock that goes faster and faster: at its nth reading it shows n squared."""
    readings = count()
    monkeypatch.setattr("sdsetup.imaging.pipeline.perf_counter", lambda: next(readings) ** 2)
    package = open_for_images(toy_package.write(folder))
    runner = Recording(LocalRunner(package=package, device=cpu()))
    return benchmark(package, runner, REQUEST, runs=3, listener=listener), runner, package


def test_times_are_of_the_batches_after_the_first(tmp_path, monkeypatch):
    result, runner, _ = benchmarked(tmp_path / "package", monkeypatch)
    # Four readings a batch: the first takes 3 squared, the next ones 7^2 - 4^2, 11^2 - 8^2, 15^2 - 12^2.
    assert result.first_image_seconds == 9
    assert result.seconds_per_image == 57 / 2
    assert result.runs == 3
    usage = runner.usage()
    assert result.seconds_per_step == median(usage["unet"].run_seconds[4:])
    for name, used in usage.items():
        times = result.submodels[name]
        assert times.load_seconds == used.load_seconds[0]
        assert times.first_seconds == used.run_seconds[0]
        assert times.run_seconds == median(used.run_seconds[1:])
        assert times.runs == len(used.run_seconds)
        assert times.nodes == dict(used.placement.nodes)
        assert times.time_share == used.placement.time_share == 1


def test_a_submodel_that_ran_once_has_that_run_s_time(tmp_path):
    package = open_for_images(toy_package.write(tmp_path / "package"))
    runner = LocalRunner(package=package, device=cpu())
    runner.run("text_encoder", {"input_ids": np.zeros((1, 77), np.int32)})
    (used,) = runner.usage().values()
    assert module._times(used).run_seconds == module._times(used).first_seconds == used.run_seconds[0]


def test_each_batch_has_seeds_of_its_own(tmp_path, monkeypatch):
    result, runner, _ = benchmarked(tmp_path / "package", monkeypatch)
    first_steps = [sample[:2] for sample in runner.samples[::4]]
    assert len(first_steps) == 4
    for place, sample in enumerate(first_steps):
        noise = LatentNoise.of(REQUEST.seed + place, 2).draw(sample.shape[1:])
        np.testing.assert_allclose(sample / noise, (sample / noise).flat[0], rtol=1e-4)
    assert result.request.seed == REQUEST.seed


def test_progress_is_that_of_the_first_batch_and_then_of_batches(tmp_path, monkeypatch):
    events = []
    benchmarked(tmp_path / "package", monkeypatch, events.append)
    kinds = [(type(event), event.task) for event in events]
    assert kinds.count((Started, "denoise")) == kinds.count((Finished, "denoise")) == 1
    timed = [event for event in events if event.task == "timed"]
    assert (timed[0].total, timed[0].unit) == (3, "images")
    assert timed[1:] == [*(Advanced(task="timed", done=done) for done in (1, 2, 3)), Finished(task="timed")]


def test_the_machine_is_described_and_not_named(tmp_path, monkeypatch):
    result, runner, _ = benchmarked(tmp_path / "package", monkeypatch)
    assert result.machine == {
        "device": runner.device.name,
        "device_memory_bytes": runner.device.memory_bytes,
        "provider": "CPUExecutionProvider",
        "onnxruntime": result.machine["onnxruntime"],
        "sdsetup": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "ram_bytes": psutil.virtual_memory().total,
        "package": "package",
        "origin": "toy_package",
        "precision": "fp32",
    }
    assert platform.node() not in result.machine.values()
    assert result.as_document()["machine"] == result.machine


@pytest.mark.skipif(sys.platform == "win32", reason="onnxruntime-directml is installed there")
@pytest.mark.parametrize("flavour", ["directml", "gpu", "migraphx", "openvino"])
def test_the_flavour_of_onnx_runtime_is_told(tmp_path, monkeypatch, flavour):
    for name in (f"onnxruntime-{flavour}", "onnxruntime"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.2.3.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert module._onnxruntime() == f"onnxruntime-{flavour} 1.2.3"


def test_all_processes_that_run_submodels_are_watched(tmp_path):
    package = open_for_images(toy_package.write(tmp_path / "package"))
    local, worker = (kind(package=package, device=cpu()) for kind in (LocalRunner, WorkerRunner))
    here, encoders = {os.getpid()}, frozenset({"text_encoder"})
    try:
        assert module._processes_of(worker) == here  # none is started yet
        worker.run("text_encoder", {"input_ids": np.zeros((1, 77), np.int32)})
        there = {worker.process_id}
        assert there not in ({None}, here)
        assert module._processes_of(worker) == there
        pair = RunnerPair(main=worker, other=local, elsewhere=encoders)
        assert module._processes_of(pair) == here | there
        nested = RunnerPair(main=pair, other=WorkerRunner(package=package, device=cpu()), elsewhere=encoders)
        assert module._processes_of(nested) == here | there
        assert module._processes_of(local) == here
    finally:
        worker.close()

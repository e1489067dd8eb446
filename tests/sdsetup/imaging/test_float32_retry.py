"""A float16 submodel whose numbers overflow is run in float32 from the same weight file, and that is said.

ONNX Runtime's CPU provider computes float16 in float32, so these graphs overflow where even it must round to
float16: at the graph's own inputs and outputs.
"""

import json
import os
import signal
import sys

import numpy as np
import pytest

from conversions.events import Advanced, Notice
from sdsetup.cli.app import main
from sdsetup.errors import SetupError
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.start import as_document, summary
from sdsetup.runtime.worker import WorkerRunner
from tests.sdsetup import toy_package
from tests.sdsetup.imaging.test_pipeline import cpu, pipeline_of, psnr

REQUEST = Request(prompt="a red horse", negative_prompt="blue", seed=7, steps=6)

# Numbers of 1e5 on the way out, more than float16 holds.
GRAPHS = {
    "unet": toy_package.GRAPHS["unet"].replace(
        "out_sample = Tanh(all)",
        "most = Tanh(all) grown = Mul(most, loud) twice = Add(grown, grown) out_sample = Identity(twice)",
    ),
    "vae_decoder": toy_package.GRAPHS["vae_decoder"].replace(
        "sample = Tanh(lifted)", "most = Tanh(lifted) grown = Mul(most, loud) sample = Add(grown, grown)"
    ),
}
LOUD = {"loud": np.float32([6e4])}

# Black where its input is infinite, which float16 makes of latents that are divided by 1e-9.
DARKENING = """
    (F[batch, 4, height, width] latent_sample) => (F[batch, 3, tall, wide] sample) {
        large = Resize<mode = "nearest">(latent_sample, , scales)
        size = Abs(large)
        less = Mul(size, tiny)
        least = Mul(less, tiny)
        colours = Conv(least, mix)
        sample = Tanh(colours)
    }"""
DARK = {"tiny": np.float32([3e-5]), "mix": np.full((3, 4, 1, 1), -0.02, np.float32)}


def write(folder, submodel, precision="fp16"):
    return toy_package.write(
        folder, precision=precision, graphs={submodel: GRAPHS[submodel]}, change={submodel: LOUD}
    )


def write_dark(folder, precision="fp16"):
    toy_package.write(
        folder, precision=precision, graphs={"vae_decoder": DARKENING}, change={"vae_decoder": DARK}
    )
    config = folder / "vae_decoder" / "config.json"
    toy_package.write_json(config, json.loads(config.read_text("utf-8")) | {"scaling_factor": 1e-9})
    toy_package.write_manifest(folder, precision)
    return folder


def heard_by(events):
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize(
    ("submodel", "where"), [("unet", " at step 1 of 7: unet runs"), ("vae_decoder", ": vae_decoder runs")]
)
def test_numbers_that_float16_cannot_hold_are_computed_again_in_float32(tmp_path, submodel, where):
    events = []
    half = pipeline_of(write(tmp_path / "half", submodel), events.append)
    whole = pipeline_of(write(tmp_path / "whole", submodel, precision="fp32"))

    assert psnr(half.generate(REQUEST).pixels, whole.generate(REQUEST).pixels) > 25
    assert f"{submodel} gave numbers that are not finite{where} in float32" in heard_by(events)[0]
    assert heard_by(events)[0].endswith(f"sdsetup convert MODEL --keep-fp32 {submodel}")
    assert [name for name, used in half.runner.usage().items() if used.upcast][:1] == [submodel]


def test_a_black_image_is_decoded_again_in_float32(tmp_path):
    events = []
    half = pipeline_of(write_dark(tmp_path / "half"), events.append)
    whole = pipeline_of(write_dark(tmp_path / "whole", precision="fp32"))

    images = half.generate(REQUEST)

    assert psnr(images.pixels, whole.generate(REQUEST).pixels) > 30
    assert images.pixels.std() > 2
    assert heard_by(events)[0].startswith("the image is black (mean 0.0 of 255): vae_decoder runs in float32")


def test_the_rest_of_the_run_and_the_next_image_stay_in_float32(tmp_path):
    events = []
    pipeline = pipeline_of(write(tmp_path / "half", "vae_decoder"), events.append)
    pipeline.generate(REQUEST)
    pipeline.generate(REQUEST)

    used = pipeline.runner.usage()["vae_decoder"]
    assert len(used.run_seconds) == 3
    assert len(used.load_seconds) == 2
    assert len(heard_by(events)) == 1


def test_no_second_copy_of_the_weights_is_written(tmp_path):
    folder = write(tmp_path / "half", "vae_decoder")
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    pipeline_of(folder).generate(REQUEST)

    assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before


def test_where_it_ran_tells_what_was_retried(tmp_path):
    pipeline = pipeline_of(write(tmp_path / "half", "vae_decoder"))
    pipeline.generate(REQUEST)

    ran = as_document(pipeline.runner)["submodels"]
    assert {name: entry["retried_in_fp32"] for name, entry in ran.items()} == {
        "text_encoder": False,
        "unet": False,
        "vae_decoder": True,
    }
    assert summary(pipeline.runner).endswith("vae_decoder in float32 after float16 failed")


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_what_float32_cannot_help_is_an_error_that_names_the_submodel(tmp_path, precision):
    mix = np.full((3, 4, 1, 1), np.nan, np.float32)
    folder = toy_package.write(tmp_path / "nan", precision=precision, change={"vae_decoder": {"mix": mix}})
    said = r"vae_decoder gave numbers that are not finite .* float32 too"
    with pytest.raises(SetupError, match=said) as caught:
        pipeline_of(folder).generate(REQUEST)
    assert "sdsetup verify" in caught.value.hint


def test_an_image_that_is_black_in_float32_too_stays_black(tmp_path):
    weights = {"mix": np.zeros((3, 4, 1, 1), np.float32), "lift": np.float32([-1e4])}
    folder = toy_package.write(tmp_path / "night", precision="fp16", change={"vae_decoder": weights})
    pipeline = pipeline_of(folder)
    assert not pipeline.generate(REQUEST).pixels.any()


def test_a_worker_retries_too_and_one_that_takes_its_place_remembers(tmp_path):
    folder = write(tmp_path / "half", "unet")
    expected = pipeline_of(folder).generate(REQUEST)
    notices = []

    def kill_at_step_three(event):
        if isinstance(event, Advanced) and event.done == 3:
            os.kill(worker.process_id, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        if isinstance(event, Notice):
            notices.append(event.text)

    package = open_for_images(folder)
    worker = WorkerRunner(package=package, device=cpu(), listener=kill_at_step_three)
    try:
        made = Pipeline(package=package, runner=worker, listener=kill_at_step_three).generate(REQUEST)
        assert worker.usage()["unet"].upcast
    finally:
        worker.close()
    assert np.array_equal(made.pixels, expected.pixels)
    assert sum("unet runs in float32" in text for text in notices) == 1
    assert any("running unet again in a new process" in text for text in notices)


def test_the_command_line_says_and_records_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "half", "vae_decoder")
    assert main(["generate", str(folder), "a horse", "--seed", "5", "--json", "--provider", "cpu"]) == 0
    made = capsys.readouterr()
    assert main(["smoke-test", str(folder), "--json", "--provider", "cpu"]) == 0
    tried = capsys.readouterr()

    for captured in (made, tried):
        assert json.loads(captured.out)["ran"]["submodels"]["vae_decoder"]["retried_in_fp32"] is True
        assert "vae_decoder in float32 after float16 failed" in captured.err
        assert "--keep-fp32 vae_decoder" in " ".join(captured.err.split())

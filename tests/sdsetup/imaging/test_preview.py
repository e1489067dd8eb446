"""Images on their way: clean latents, approximate colours, and a file that is replaced."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from conversions.providers.table import provider_for
from conversions.recipe import LatentSpace
from sdsetup.errors import UsageError
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.preview import _COLOURS, Preview, approximate, demand_interval, place_for
from sdsetup.imaging.request import Request
from sdsetup.runtime.devices import Device
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from tests.sdsetup import toy_package

SHAPE = (2, 4, 8, 8)


@pytest.mark.parametrize(("channels", "scaling"), [(4, 0.18215), (4, 0.13025), (16, 1.5305), (16, 0.3611)])
def test_latents_of_known_spaces_have_colours(channels, scaling):
    space = LatentSpace(channels=channels, downscale=8, scaling=scaling)
    pixels = approximate(np.zeros((3, channels, 2, 5), np.float32), space)
    assert pixels is not None
    assert pixels.shape == (3, 2, 5, 3)
    assert pixels.dtype == np.uint8
    assert (abs(pixels.astype(int) - 128) < 32).all()
    far = approximate(np.full((1, channels, 1, 1), 1e4, np.float32), space)
    assert far is not None
    assert set(far.ravel().tolist()) <= {0, 255}


def test_other_spaces_have_none():
    assert approximate(np.zeros(SHAPE, np.float32), LatentSpace(channels=4, downscale=8, scaling=1.0)) is None


@pytest.fixture
def pipeline(tmp_path):
    package = open_for_images(toy_package.write(tmp_path / "package", precision="fp32"))
    runner = LocalRunner(package=package, device=Device(provider=provider_for("cpu"), name="CPU"))
    return Pipeline(package=package, runner=runner)


def with_preview(pipeline, path, every):
    return Pipeline(package=pipeline.package, runner=pipeline.runner, preview=Preview(path=path, every=every))


REQUEST = Request(prompt="a cat", steps=5, scheduler="euler", images=2, width=64, height=128)


def test_previews_have_the_images_sizes_beside_each_other(tmp_path, pipeline):
    path = tmp_path / "preview.png"
    shown = with_preview(pipeline, path, 2).generate(REQUEST)
    with Image.open(path) as image:
        assert image.size == (2 * 64, 128)
    np.testing.assert_array_equal(shown.pixels, pipeline.generate(REQUEST).pixels)


@pytest.mark.parametrize("low_memory", [True, False])
def test_the_decoder_of_a_preview_is_closed_where_memory_is_short(tmp_path, pipeline, low_memory):
    pipeline.runner.low_memory = low_memory
    with_preview(pipeline, tmp_path / "preview.png", 2).generate(REQUEST)
    used = pipeline.runner.usage()["vae_decoder"]
    assert len(used.load_seconds) == (3 if low_memory else 1)  # after steps 2 and 4, and for the images
    assert len(used.run_seconds) == 6


def test_none_is_written_before_its_step_or_for_the_last_one(tmp_path, pipeline):
    for every in (5, 9):
        with_preview(pipeline, tmp_path / "preview.png", every).generate(REQUEST)
    assert not (tmp_path / "preview.png").exists()


def test_what_is_no_preview_of_an_ended_run_is_never_written_over(tmp_path, pipeline):
    wanted = tmp_path / "preview.png"
    assert place_for(wanted) == wanted
    with_preview(pipeline, wanted, 2).generate(REQUEST)
    assert place_for(wanted).name == "preview-2.png"  # this process may write it still
    Image.new("RGB", (8, 8)).save(tmp_path / "preview-2.png")
    (tmp_path / "preview-3.png").write_bytes(b"no image")
    (tmp_path / "preview-4.png").write_bytes(wanted.read_bytes()[:40])
    (tmp_path / "preview-5.png").mkdir()
    assert place_for(wanted).name == "preview-6.png"


def test_a_preview_of_a_run_that_has_ended_is_replaced(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    wanted = tmp_path / "preview.png"
    for writer, place in (
        (str(ended.pid), "preview.png"),
        ("9" * 11, "preview-2.png"),
        ("-1", "preview-2.png"),
    ):
        notes = PngInfo()
        notes.add_text("sdsetup preview of process", writer)
        Image.new("RGB", (8, 8)).save(wanted, pnginfo=notes)
        assert place_for(wanted).name == place


def test_a_preview_that_cannot_be_written_stops_nothing(tmp_path, pipeline):
    (tmp_path / "file").write_bytes(b"")
    generated = with_preview(pipeline, tmp_path / "file" / "preview.png", 1).generate(REQUEST)
    assert generated.pixels.shape == (2, 128, 64, 3)


def test_fewer_than_one_step_is_refused():
    demand_interval(1)
    with pytest.raises(UsageError, match="--preview 0 is out of range") as caught:
        demand_interval(0)
    assert caught.value.code == "generate.preview"


def test_the_colours_are_the_published_ones():
    """Numbers that were read from their source once: a digit that is changed unawares shows nowhere else."""
    found = {key: zlib.crc32(repr(colours).encode()) for key, colours in _COLOURS.items()}
    assert found == {
        (4, 0.18215): 751022503,
        (4, 0.13025): 2107913991,
        (16, 1.5305): 3746366233,
        (16, 0.3611): 3355553604,
    }

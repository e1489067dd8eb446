"""Images that people name: those that open, and what is said of the others."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdsetup.errors import SetupError
from sdsetup.imaging.read_image import reading

HINT = "give a PNG."


def refused(path: Path) -> str:
    with pytest.raises(SetupError) as caught, reading(path, HINT):
        pytest.fail("it was opened")
    assert (caught.value.code, caught.value.hint) == ("image.unreadable", HINT)
    assert caught.value.message.startswith(f"{path} cannot be read as an image: ")
    assert caught.value.message.endswith(".")
    return caught.value.message.removeprefix(f"{path} cannot be read as an image: ")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_size_and_pixels_are_read(image: Path) -> None:
    with reading(image, HINT) as opened:
        assert opened.size == (30, 40)
        assert np.asarray(opened).shape == (40, 30, 3)


def test_a_file_that_ends_early_is_refused_at_once(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:-1000])
    assert "truncated" in refused(image)


def test_other_files_folders_and_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught, reading(tmp_path / "nothing.png", HINT):
        pytest.fail("it was opened")
    assert caught.value.message == f"there is no file {tmp_path / 'nothing.png'}."
    assert caught.value.hint == "check the spelling; give a PNG."
    assert refused(tmp_path) == "it is no ordinary file."
    (tmp_path / "text.png").write_text("text", "utf-8")
    assert refused(tmp_path / "text.png").startswith("cannot identify image file")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert refused(tmp_path / "pipe.png") == "it is no ordinary file."


def test_an_image_that_would_fill_the_memory_is_refused(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # of 1,200: more than twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "decompression bomb" in refused(image)


def test_an_error_of_the_reader_s_own_has_its_say(image: Path) -> None:
    with pytest.raises(SetupError) as caught, reading(image, HINT):
        raise EOFError
    assert caught.value.message == f"{image} cannot be read as an image: EOFError."
    with pytest.raises(KeyError), reading(image, HINT):
        raise KeyError("mine")

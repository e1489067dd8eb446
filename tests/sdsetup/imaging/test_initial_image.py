"""Images to start from and masks, by value: sizes, colours and where a mask is white."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conversions.recipe import ImageSize
from sdsetup.errors import SetupError
from sdsetup.imaging.initial_image import fitted_size, read_mask, read_pixels

NATIVE = ImageSize(width=512, height=512)


def save(path: Path, values: np.ndarray, **options: object) -> Path:
    Image.fromarray(values).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("size", "native", "multiple", "fitted"),
    [
        ((512, 512), NATIVE, 8, (512, 512)),
        ((100, 100), NATIVE, 8, (512, 512)),
        ((200, 100), NATIVE, 8, (728, 360)),
        ((100, 200), NATIVE, 8, (360, 728)),
        ((100, 200), NATIVE, 64, (384, 704)),
        ((3, 2), ImageSize(width=1024, height=768), 16, (1088, 720)),
        ((4000, 1), NATIVE, 8, (32384, 8)),
        ((1, 4000), NATIVE, 8, (8, 32384)),
    ],
)
def test_an_image_keeps_its_proportions_at_the_area_of_training(
    tmp_path: Path, size: tuple[int, int], native: ImageSize, multiple: int, fitted: tuple[int, int]
) -> None:
    path = save(tmp_path / "a.png", np.zeros((size[1], size[0], 3), np.uint8))
    found = fitted_size(path, native, multiple)
    assert (found.width, found.height) == fitted


def test_colours_go_from_minus_one_to_one(tmp_path: Path) -> None:
    values = np.zeros((2, 3, 3), np.uint8)
    values[0, 0], values[0, 1], values[1, 2] = (255, 0, 0), (0, 255, 0), (51, 102, 204)
    found = read_pixels(save(tmp_path / "a.png", values), ImageSize(width=3, height=2))
    assert found.dtype == np.float32
    assert found.shape == (1, 3, 2, 3)
    np.testing.assert_allclose(found[0], values.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_grey_images_and_transparent_ones_have_three_colours(tmp_path: Path) -> None:
    grey = save(tmp_path / "grey.png", np.full((4, 4), 255, np.uint8))
    clear = save(tmp_path / "clear.png", np.full((4, 4, 4), (255, 255, 255, 0), np.uint8))
    for path in (grey, clear):
        np.testing.assert_array_equal(read_pixels(path, ImageSize(width=4, height=4)), np.ones((1, 3, 4, 4)))


def test_another_size_is_resized_as_lanczos_does(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (9, 17, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", values)
    found = read_pixels(path, ImageSize(width=32, height=16))
    expected = np.asarray(Image.fromarray(values).resize((32, 16), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_a_mask_is_one_from_half_white_on(tmp_path: Path) -> None:
    values = np.array([[0, 127, 128, 255]], np.uint8)
    found = read_mask(save(tmp_path / "m.png", values), ImageSize(width=4, height=1))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[[[0, 0, 1, 1]]]])
    coloured = save(tmp_path / "c.png", np.full((2, 2, 3), (255, 255, 0), np.uint8))
    assert read_mask(coloured, ImageSize(width=8, height=4)).shape == (1, 1, 4, 8)
    assert read_mask(coloured, ImageSize(width=8, height=4)).all()


def test_an_image_is_turned_as_its_camera_notes_say(tmp_path: Path) -> None:
    notes = Image.Exif()
    notes[0x0112] = 6  # turned by a quarter
    path = save(tmp_path / "a.jpg", np.zeros((100, 200, 3), np.uint8), exif=notes)
    found = fitted_size(path, NATIVE, 8)
    assert (found.width, found.height) == (360, 728)


@pytest.mark.parametrize("read", [read_pixels, read_mask])
def test_what_is_no_image_is_named_with_what_to_give(tmp_path: Path, read: object) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")
    with pytest.raises(SetupError, match=r"a\.png cannot be read as an image") as caught:
        read(path, NATIVE)  # type: ignore[operator]
    assert caught.value.code == "image.unreadable"
    assert "PNG" in caught.value.hint

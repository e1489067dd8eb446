"""Which images count as blank."""

from __future__ import annotations

import numpy as np
import pytest

from sdsetup.imaging.blank_image import find_blank


def halves(low: int, high: int) -> np.ndarray:
    """An image of two colours: its mean lies between them, its deviation is half of their distance."""
    pixels = np.full((8, 6, 3), low, np.uint8)
    pixels[4:] = high
    return pixels


@pytest.mark.parametrize(
    ("low", "high", "reasons"),
    [
        (0, 0, ("the image is black (mean 0.0 of 255)",)),
        (0, 7, ("the image is black (mean 3.5 of 255)",)),
        (0, 8, ()),
        (3, 5, ("the image is one colour all over (values deviate by 1.0 of 255)",)),
        (128, 131, ("the image is one colour all over (values deviate by 1.5 of 255)",)),
        (128, 132, ()),
        (255, 255, ("the image is one colour all over (values deviate by 0.0 of 255)",)),
        (0, 255, ()),
    ],
)
def test_black_images_and_those_of_one_colour_are_blank(
    low: int, high: int, reasons: tuple[str, ...]
) -> None:
    assert find_blank(halves(low, high)) == reasons


def test_a_dark_image_with_one_bright_line_is_not_blank() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[0] = 255
    assert find_blank(pixels) == ()


def test_a_dark_image_that_deviates_enough_is_not_black() -> None:
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[:2] = 10  # mean 2, deviation 4
    assert find_blank(pixels) == ()

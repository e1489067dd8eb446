"""How an axis is divided into windows."""

from __future__ import annotations

import pytest

from conversions.tiling.windows import Span, windows


@pytest.mark.parametrize("length", [1, 7, 33, 64, 65, 127, 1000])
@pytest.mark.parametrize(("most", "halo"), [(1, 0), (16, 1), (32, 2), (64, 3), (5000, 1)])
def test_windows_are_of_one_length_and_give_every_pixel_once(length: int, most: int, halo: int) -> None:
    found = list(windows(length, most, halo))
    given = [pixel for each in found for pixel in range(each.given.start, each.given.stop)]
    assert given == list(range(length))
    assert len({each.read.length for each in found}) == 1
    for each in found:
        assert each.read.start >= 0 and each.read.stop <= length
        assert each.read.start == 0 or each.given.start - each.read.start >= halo
        assert each.read.stop == length or each.read.stop - each.given.stop >= halo
        assert each.given.length > 0


def test_pixels_are_found_in_larger_images_and_in_windows() -> None:
    pixels = Span(start=12, stop=20)
    assert pixels.length == 8
    assert pixels.scaled(4) == slice(48, 80)
    assert pixels.within(Span(start=10, stop=30)) == Span(start=2, stop=10)


def test_windows_read_no_more_than_they_may() -> None:
    assert all(each.read.length <= 32 for each in windows(1000, 32, 2))
    assert [each.read.length for each in windows(30, 32, 2)] == [30]
    assert len(list(windows(36, 32, 2))) == 2

"""Windows of an image: the pixels that a tile reads, and those of them whose result is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SMALLEST = 8
"""Fewest pixels that a window gives, its halo not counted."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Pixels along one axis.

    Attributes:
        start: The first pixel.
        stop: The pixel after the last.
    """

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many there are."""
        return self.stop - self.start

    def scaled(self, times: int) -> slice:
        """Return the same pixels of an image that is a number of times as large."""
        return slice(self.start * times, self.stop * times)

    def within(self, outer: Span) -> Span:
        """Return the same pixels, counted from the start of ``outer``."""
        return Span(start=self.start - outer.start, stop=self.stop - outer.start)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Pixels of a tile along one axis.

    Attributes:
        read: Pixels that the tile is computed from.
        given: Those of them whose result is right; those of all windows are the image, each pixel once.
    """

    read: Span
    given: Span


def windows(length: int, most: int, halo: int) -> Iterator[Window]:
    """Divide an axis into windows of one length, all within the image.

    A window ends at the image's edge or reads ``halo`` pixels more than it gives. All have one length, so
    that one session of fixed size takes them.

    Args:
        length: Of the axis, in pixels.
        most: Pixels that a window may read.
        halo: Pixels at an edge that are wrong where the image goes on.
    """
    given = max(most - 2 * halo, SMALLEST)
    count = 1 if length <= given + 2 * halo else -(-length // given)
    given = -(-length // count)
    read = min(length, given + 2 * halo)
    for start in range(0, length, given):
        first = min(max(start - halo, 0), length - read)
        yield Window(
            read=Span(start=first, stop=first + read),
            given=Span(start=start, stop=min(start + given, length)),
        )

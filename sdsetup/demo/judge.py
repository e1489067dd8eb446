"""Does a demo image show what its caption asks for?"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdsetup.demo.sight import PALETTE, Sight, Thing, look
from sdsetup.errors import UsageError

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZE_LIMIT = 22.5 / 128
"""Between small and large: the radius of a thing as a share of the image's width."""

_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3}
_COLOUR = f"(?:{'|'.join(PALETTE)})"
_THING = (
    rf"(?P<count{{0}}>{'|'.join(_COUNTS)}) (?:(?P<size{{0}}>small|large) )?"
    rf"(?P<colour{{0}}>{_COLOUR}) (?P<shape{{0}}>{'|'.join(SHAPES)})(?:e?s)?"
)
_CAPTION = re.compile(
    _THING.format(1)
    + rf"(?: (?:to the )?(?P<side>left|right) of {_THING.format(2)})?"
    + rf"(?: on (?:an? )?(?P<background>{_COLOUR})(?: background)?)?"
)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One thing that a caption asks for; ``size`` is "small", "large" or empty."""

    colour: str
    shape: str
    size: str

    def __str__(self) -> str:
        return " ".join(word for word in (self.size, self.colour, self.shape) if word)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a caption asks for.

    Attributes:
        things: The things, in the caption's order.
        side: "left" or "right" of the second thing is where the first belongs; empty without a relation.
        background: Colour name; empty when the caption leaves it open.
    """

    things: tuple[Wanted, ...]
    side: str
    background: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether an image is right, and if not, everything that is wrong in plain words.

    Attributes:
        passed: True when nothing is wrong.
        reasons: What is wrong, empty when nothing is.
        sight: What was seen.
    """

    passed: bool
    reasons: tuple[str, ...]
    sight: Sight


def read(caption: str) -> Request:
    """Understand a caption of the demo's world.

    Raises:
        UsageError: The caption is not of that world.
    """
    match = _CAPTION.fullmatch(" ".join(caption.lower().split()))
    if match is None:
        raise UsageError(
            "demo.caption",
            f"'{caption}' is not a caption that the demo knows.",
            "try one like 'a small yellow star left of a purple square on a white background'.",
        )
    wanted = [_wanted(match, 1)] * _COUNTS[match["count1"]]
    if match["side"]:
        wanted += [_wanted(match, 2)] * _COUNTS[match["count2"]]
    return Request(things=tuple(wanted), side=match["side"] or "", background=match["background"] or "")


def judge(image: NDArray[np.uint8], caption: str) -> Verdict:
    """Compare an image with its caption.

    Args:
        image: sRGB, uint8 ``[height, width, 3]``.
        caption: What was asked for, in the demo's words.

    Raises:
        UsageError: The caption is not of the demo's world.
    """
    request, sight = read(caption), look(image)
    reasons = [*_wrong_background(request, sight), *_wrong_things(request, sight, image.shape[1])]
    return Verdict(passed=not reasons, reasons=tuple(reasons), sight=sight)


def _wanted(match: re.Match[str], number: int) -> Wanted:
    return Wanted(
        colour=match[f"colour{number}"], shape=match[f"shape{number}"], size=match[f"size{number}"] or ""
    )


def _wrong_background(request: Request, sight: Sight) -> list[str]:
    if request.background in ("", sight.background):
        return []
    return [f"the background is {sight.background}, not {request.background}"]


def _wrong_things(request: Request, sight: Sight, width: int) -> list[str]:
    if len(sight.things) != len(request.things):
        return [f"{len(sight.things)} things are there, not {len(request.things)}"]
    # Things are seen from left to right, so the caption's order says which is which.
    wanted = request.things[::-1] if request.side == "right" else request.things
    return [
        fault
        for thing, asked in zip(sight.things, wanted, strict=True)
        for fault in _faults(thing, asked, SIZE_LIMIT * width)
    ]


def _faults(thing: Thing, wanted: Wanted, limit: float) -> list[str]:
    faults = []
    if (thing.colour, thing.shape) != (wanted.colour, wanted.shape):
        faults.append(f"a {thing.colour} {thing.shape} is where a {wanted.colour} {wanted.shape} belongs")
    if (wanted.size == "small" and thing.radius > limit) or (wanted.size == "large" and thing.radius < limit):
        faults.append(f"the {thing.colour} {thing.shape} is not {wanted.size}")
    return faults

"""Judge whether a demo image shows what its caption asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdsetup.demo.scene import PALETTE, Scene, Thing, detect_scene
from sdsetup.errors import UsageError

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZE_LIMIT = 22.5 / 128
"""Radius that separates small from large, as a share of the image's width."""

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
    """One thing in a caption; ``size`` is "small", "large" or empty."""

    colour: str
    shape: str
    size: str

    def __str__(self) -> str:
        return " ".join(word for word in (self.size, self.colour, self.shape) if word)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Parsed caption.

    Attributes:
        things: The things, in the caption's order.
        side: "left" or "right": where the first thing is relative to the second; empty without a relation.
        background: Colour name; empty when the caption leaves it open.
    """

    things: tuple[Wanted, ...]
    side: str
    background: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether an image matches its caption, and if not, why.

    Attributes:
        passed: True when nothing is wrong.
        reasons: Descriptions of what is wrong; empty when nothing is.
        scene: The detected scene.
    """

    passed: bool
    reasons: tuple[str, ...]
    scene: Scene


def read(caption: str) -> Request:
    """Parse a caption of the demo.

    Raises:
        UsageError: The caption is not in the demo's vocabulary.
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
        caption: The caption, in the demo's vocabulary.

    Raises:
        UsageError: The caption is not in the demo's vocabulary.
    """
    request, scene = read(caption), detect_scene(image)
    reasons = [*_wrong_background(request, scene), *_wrong_things(request, scene, image.shape[1])]
    return Verdict(passed=not reasons, reasons=tuple(reasons), scene=scene)


def _wanted(match: re.Match[str], number: int) -> Wanted:
    return Wanted(
        colour=match[f"colour{number}"], shape=match[f"shape{number}"], size=match[f"size{number}"] or ""
    )


def _wrong_background(request: Request, scene: Scene) -> list[str]:
    if request.background in ("", scene.background):
        return []
    return [f"the background is {scene.background}, not {request.background}"]


def _wrong_things(request: Request, scene: Scene, width: int) -> list[str]:
    if len(scene.things) != len(request.things):
        return [f"{len(scene.things)} things were found, not {len(request.things)}"]
    # Things are sorted from left to right, so the caption's order identifies them.
    wanted = request.things[::-1] if request.side == "right" else request.things
    return [
        fault
        for thing, asked in zip(scene.things, wanted, strict=True)
        for fault in _faults(thing, asked, SIZE_LIMIT * width)
    ]


def _faults(thing: Thing, wanted: Wanted, limit: float) -> list[str]:
    faults = []
    if (thing.colour, thing.shape) != (wanted.colour, wanted.shape):
        faults.append(f"a {thing.colour} {thing.shape} is where a {wanted.colour} {wanted.shape} belongs")
    if (wanted.size == "small" and thing.radius > limit) or (wanted.size == "large" and thing.radius < limit):
        faults.append(f"the {thing.colour} {thing.shape} is not {wanted.size}")
    return faults

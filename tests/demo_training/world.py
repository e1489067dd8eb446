"""The demo's world: which scenes exist, how a caption says them, and how they are drawn.

A scene has a background and one to three things. Scenes are kept as arrays, a row a scene, because training
wants them by the hundred thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.demo_training.shapes import PIXELS, SHAPES, coverage

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (247, 140, 30),
    "yellow": (250, 220, 50),
    "green": (40, 150, 60),
    "blue": (40, 90, 215),
    "purple": (125, 40, 170),
    "pink": (250, 150, 200),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
    "black": (15, 15, 15),
}
COLOUR_NAMES, SHAPE_NAMES = tuple(COLOURS), tuple(SHAPES)

PLAIN, SMALL, LARGE = 0, 1, 2
SIZE_WORDS = ("", "small ", "large ")
ALONE_RADII = ((20, 26), (14, 18), (30, 40))
COMPANY_RADII = ((18, 24), (14, 18), (27, 31))
"""Radii in pixels, least and greatest, by size word; things in company are drawn a little smaller to fit."""

SINGLE, SEVERAL, RELATION = 0, 1, 2
HELD_OUT_SHARE = 0.2
MOST_THINGS = 3
_MARGIN, _GAP = 2.0, 4.0
_PLACEMENT_TRIES = 256


def held_out() -> NDArray[np.bool_]:
    """The combinations that training never sees.

    Returns:
        True where held out, ``[colour, shape, background]``; False where colour and background are the same.
    """
    colours, shapes = len(COLOURS), len(SHAPES)
    possible = np.broadcast_to(~np.eye(colours, dtype=bool)[:, None, :], (colours, shapes, colours))
    lottery = np.random.default_rng(2022).random(possible.shape)
    lottery[~possible] = np.inf
    limit = np.quantile(lottery[possible], HELD_OUT_SHARE)
    return lottery < limit


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Scenes as arrays; things past ``count`` are there but not drawn.

    Attributes:
        kind: SINGLE, SEVERAL (the same thing two or three times) or RELATION (two things), ``[n]``.
        count: Things in the scene, ``[n]``.
        background: Colour index, ``[n]``.
        colour: Colour index of each thing, ``[n, 3]``.
        shape: Shape index of each thing, ``[n, 3]``.
        size: PLAIN, SMALL or LARGE for each thing, ``[n, 3]``.
        leftward: In a relation, whether the first thing is left of the second, ``[n]``.
        wording: How the background is said: 0 not at all, 1 "on blue", 2 "on a blue background", ``[n]``.
    """

    kind: NDArray[np.int64]
    count: NDArray[np.int64]
    background: NDArray[np.int64]
    colour: NDArray[np.int64]
    shape: NDArray[np.int64]
    size: NDArray[np.int64]
    leftward: NDArray[np.bool_]
    wording: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, rows: NDArray[np.int64] | slice) -> Scenes:
        """The scenes at the given rows."""
        return Scenes(**{name: column[rows] for name, column in vars(self).items()})


def sample(count: int, seed: int, *, unseen: bool = False, leftward: float = 0.5) -> Scenes:
    """Draw scenes at random.

    Args:
        count: How many.
        seed: The same seed gives the same scenes.
        unseen: False for training: no thing is a held-out combination. True for the examination: every
            thing is one, and every caption states the background.
        leftward: How many of the relations say "left of", as a share.
    """
    random = np.random.default_rng(seed)
    secret = held_out()
    kept: list[Scenes] = []
    while sum(map(len, kept)) < count:
        scenes = _propose(random, 4096, leftward)
        hidden = secret[scenes.colour, scenes.shape, scenes.background[:, None]]
        drawn = np.arange(MOST_THINGS) < scenes.count[:, None]
        usual = (scenes.colour != scenes.background[:, None]) | ~drawn
        good = ((hidden == unseen) | ~drawn).all(1) & ((scenes.wording > 0) | (not unseen))
        twins = (scenes.kind == RELATION) & (
            (scenes.colour[:, 0] == scenes.colour[:, 1]) & (scenes.shape[:, 0] == scenes.shape[:, 1])
        )
        kept.append(scenes.take(np.flatnonzero(good & usual.all(1) & ~twins)))
    return Scenes(**{name: np.concatenate([vars(s)[name] for s in kept])[:count] for name in vars(kept[0])})


def _propose(random: np.random.Generator, count: int, leftward: float) -> Scenes:
    kind = random.choice(3, count, p=(0.35, 0.30, 0.35))
    things = np.select([kind == SINGLE, kind == RELATION], [1, 2], random.integers(2, 4, count))
    colour = random.integers(len(COLOURS), size=(count, MOST_THINGS))
    shape = random.integers(len(SHAPES), size=(count, MOST_THINGS))
    size = random.choice(3, (count, MOST_THINGS), p=(0.4, 0.3, 0.3))
    alike = kind == SEVERAL
    for column in (colour, shape, size):
        column[alike] = column[alike, :1]
    # Three large things, or one large thing beside another, leave no room to choose a place.
    size[(things == 3) & (size[:, 0] == LARGE)] = PLAIN
    size[(kind == RELATION) & (size[:, 0] == LARGE) & (size[:, 1] == LARGE), 1] = SMALL
    return Scenes(
        kind=kind,
        count=things,
        background=random.integers(len(COLOURS), size=count),
        colour=colour,
        shape=shape,
        size=size,
        leftward=random.random(count) < leftward,
        wording=random.choice(3, count, p=(0.1, 0.3, 0.6)),
    )


def captions(scenes: Scenes) -> list[str]:
    """What each scene is called, for example ``"a small yellow star left of a purple square"``."""
    return [_caption(scenes, row) for row in range(len(scenes))]


def _caption(scenes: Scenes, row: int) -> str:
    def thing(index: int) -> str:
        colour, shape = COLOUR_NAMES[scenes.colour[row, index]], SHAPE_NAMES[scenes.shape[row, index]]
        return f"{SIZE_WORDS[scenes.size[row, index]]}{colour} {shape}"

    if scenes.kind[row] == SEVERAL:
        plural = "es" if thing(0).endswith("ss") else "s"
        text = f"{('two', 'three')[scenes.count[row] - 2]} {thing(0)}{plural}"
    else:
        text = _with_article(thing(0))
    if scenes.kind[row] == RELATION:
        side = "left" if scenes.leftward[row] else "right"
        text = f"{text} {side} of {_with_article(thing(1))}"
    background = COLOUR_NAMES[scenes.background[row]]
    wordings = ("", f" on {background}", f" on {_with_article(background)} background")
    return text + wordings[scenes.wording[row]]


def _with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def draw(scenes: Scenes, generator: torch.Generator) -> Tensor:
    """Draw every scene with random place, size and rotation.

    Args:
        scenes: What to draw.
        generator: Its device is where the images are made.

    Returns:
        Images, -1 to 1, float32 ``[n, 3, PIXELS, PIXELS]``.
    """
    device = generator.device
    palette = torch.tensor(list(COLOURS.values()), device=device) / 127.5 - 1

    def tensor(column: NDArray[np.int64] | NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(column).to(device)

    radius = _radii(scenes, generator)
    centre = _places(scenes, radius, generator)
    angle = 2 * torch.pi * torch.rand(radius.shape, generator=generator, device=device)
    colours = palette[tensor(scenes.colour)]
    shapes, counts = tensor(scenes.shape), tensor(scenes.count)
    images = palette[tensor(scenes.background)][:, :, None, None].repeat(1, 1, PIXELS, PIXELS)
    for index in range(MOST_THINGS):
        rows = (counts > index).nonzero().squeeze(1)
        mask = coverage(shapes[rows, index], centre[rows, index], radius[rows, index], angle[rows, index])
        images[rows] = torch.lerp(images[rows], colours[rows, index, :, None, None], mask[:, None])
    return images


def draw_bytes(scenes: Scenes, generator: torch.Generator) -> Tensor:
    """Draw many scenes: uint8 ``[n, 3, PIXELS, PIXELS]`` on the generator's device."""
    images = torch.empty(len(scenes), 3, PIXELS, PIXELS, dtype=torch.uint8, device=generator.device)
    for begin in range(0, len(scenes), 1024):
        part = slice(begin, begin + 1024)
        images[part] = ((draw(scenes.take(part), generator) + 1) * 127.5).round().to(torch.uint8)
    return images


def from_bytes(images: Tensor) -> Tensor:
    """Images from bytes to -1 to 1, float32, laid out for convolutions."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _radii(scenes: Scenes, generator: torch.Generator) -> Tensor:
    ranges = np.where(
        (scenes.count > 1)[:, None, None],
        np.asarray(COMPANY_RADII, np.float32)[scenes.size],
        np.asarray(ALONE_RADII, np.float32)[scenes.size],
    )
    least, most = torch.from_numpy(ranges).to(generator.device).unbind(-1)
    return least + (most - least) * torch.rand(least.shape, generator=generator, device=generator.device)


def _places(scenes: Scenes, radius: Tensor, generator: torch.Generator) -> Tensor:
    """Try many places at once and keep the first where all things fit apart, else the least crowded.

    "Left of" means that the step from one centre to the other is more across than down.
    """
    device = generator.device
    count = torch.from_numpy(scenes.count).to(device)
    reach = radius[:, None, :, None] + _MARGIN
    chance = torch.rand(len(scenes), _PLACEMENT_TRIES, MOST_THINGS, 2, generator=generator, device=device)
    places = reach + (PIXELS - 2 * reach) * chance
    slack = torch.full(places.shape[:2], torch.inf, device=device)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        apart = (places[:, :, one] - places[:, :, other]).norm(dim=-1)
        room = apart - (radius[:, one] + radius[:, other] + _GAP)[:, None]
        slack = torch.where((count > other)[:, None], torch.minimum(slack, room), slack)
    step = places[:, :, 1] - places[:, :, 0]
    across = torch.where(torch.from_numpy(scenes.leftward).to(device)[:, None], step[..., 0], -step[..., 0])
    related = torch.from_numpy(scenes.kind == RELATION).to(device)[:, None]
    slack = torch.where(related, torch.minimum(slack, across - step[..., 1].abs()), slack)
    best = torch.where((slack >= 0).any(1), (slack >= 0).float().argmax(1), slack.argmax(1))
    return places[torch.arange(len(scenes), device=device), best]

"""Arguments that nobody foresaw: every option of the verbs that make and read things, with strange values."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from sdsetup.cli.verbs import VERBS, Verb
from tests.docs.cli_reference import types_of
from tests.robustness.checkpoints import end_of
from tests.robustness.materials import Materials, clear
from tests.robustness.search import Figures, search
from tests.robustness.user import LawBrokenError, User, list_files

Case = tuple[str, ...]

_VERBS = ("generate", "inspect", "verify", "smoke-test", "benchmark", "convert", "download")
_PATHS = (
    ".", "..", "", "~", "./", "toy/..", "toy", "toy/unet", "toy/manifest.json", "image.png", "file.txt",
    "nothing", "nothing/at all", "image.png/inside", "a" * 300, "ü/\N{GRINNING FACE}", "line\nbreak", "-",
    "\udcff", "owner/name", "https://example.com/x", "demo", "image.png:1", "*", "$HOME",
)  # fmt: skip
# No step count of a day, which nobody would call a hang.
_NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "3.5",
    "64",
    "abc",
    "",
    "9" * 21,
    "-" + "9" * 21,
    "nan",
    "inf",
    "1e999",
    "\u0663",
)
_TEXTS = (
    "",
    "x",
    "a horse",
    "fp16",
    "unet",
    "unet=int4",
    "cpu",
    "ddim",
    "main",
    "\x01",
    "\udcff",
    "x" * 5000,
)


def every_option(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Run verbs with up to three options, whose values are paths, numbers and words of every kind."""
    figures = Figures(attack="arguments: every option")
    with materials.user("arguments") as user:

        def check(case: Case) -> None:
            _furnish(materials, user)
            root = user.home.parent
            above = list_files(root, [user.home])
            done = user.run(*case)
            if changed := list_files(root, [user.home]).keys() ^ above.keys():
                # An image belongs where it was asked for.
                if ".." not in case or any(not name.endswith((".png", ".json")) for name in changed):
                    raise LawBrokenError(f"files changed outside of the folder: {sorted(changed)[:3]}")
                clear([root / name for name in changed])
            figures.count(end_of(done))

        search(_cases(), check, figures, until=until, seed=seed, most=most)
    figures.slowest_seconds = user.slowest_seconds
    return figures


def _furnish(materials: Materials, user: User) -> None:
    """Put into the home what the paths name, and nothing else."""
    kept = {user.home / "toy", user.home / "caches", user.home / "hf"}
    clear([path for path in user.home.iterdir() if path not in kept])
    if not (user.home / "toy").exists() or list_files(user.home / "toy") != list_files(materials.toy()):
        clear([user.home / "toy"])
        shutil.copytree(materials.toy(), user.home / "toy")
    Image.new("RGB", (64, 64)).save(user.home / "image.png")
    (user.home / "file.txt").write_text("no image")


def _cases() -> st.SearchStrategy[Case]:
    return st.one_of([_of_verb(verb) for verb in VERBS if verb.name in _VERBS])


def _of_verb(verb: Verb) -> st.SearchStrategy[Case]:
    types = types_of(verb)
    params: list[Any] = [each for each in verb.load().params if each.name in types]
    options = [each for each in params if each.param_type_name == "option"]
    first = st.sampled_from((*["demo" if verb.name == "convert" else "toy"] * len(_PATHS), *_PATHS))
    words = [first, st.sampled_from(_TEXTS)] if verb.name == "generate" else [first]
    # A plan of the demo says as much as its conversion, in a tenth of the time.
    fixed = {
        "convert": ("--dry-run", "--target", "cpu"),
        "download": ("--dry-run",),
        "inspect": (),
    }.get(verb.name, ("--provider", "cpu"))
    picked = st.lists(st.one_of([_of_option(each, types[each.name]) for each in options]), max_size=3)
    return st.tuples(st.tuples(*words), picked).map(
        lambda drawn: (
            verb.name,
            *_positional(drawn[0]),
            *fixed,
            *(word for part in drawn[1] for word in part),
        )
    )


def _positional(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"./{word}" if word.startswith("-") else word for word in words)


def _of_option(option: Any, kind: Any) -> st.SearchStrategy[Case]:
    if kind is bool:
        return st.sampled_from([(each,) for each in (*option.opts, *option.secondary_opts)])
    values = {int: _NUMBERS, float: _NUMBERS, Path: _PATHS}.get(kind, (*_TEXTS, *_PATHS))
    name = option.opts[0]
    return st.sampled_from(values).map(
        lambda value: (f"{name}={value}",) if value.startswith("-") else (name, value)
    )

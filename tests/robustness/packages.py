"""Mutated packages through generate, inspect and verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from tests.hub_server.client import Done
from tests.robustness import mutations
from tests.robustness.checkpoints import end_of
from tests.robustness.materials import Materials, clear
from tests.robustness.mutations import Mutation
from tests.robustness.search import Figures, search
from tests.robustness.user import LawBrokenError, User

Case = tuple[str, tuple[Mutation, ...]]


def inspect(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Inspect mutated packages of every family."""

    def command(user: User, package: Path) -> Done:
        return user.run("inspect", str(package), "--json")

    return _attack("packages: inspect", materials, command, until=until, seed=seed, most=most)


def generate(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Make images with mutated packages."""

    def command(user: User, package: Path) -> Done:
        words = ("--steps", "2", "--seed", "1", "--provider", "cpu", "--width", "64", "--height", "64")
        done = user.run("generate", str(package), "a horse", *words, "-o", str(user.home / "image.png"))
        if (done.code == 0) != (user.home / "image.png").is_file():
            raise LawBrokenError(f"status {done.code}, and an image is there or not: {done.stderr[-500:]}")
        return done

    return _attack("packages: generate", materials, command, until=until, seed=seed, most=most, toys=True)


def verify(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Verify mutated packages: whatever differs from the manifest must be found."""

    def command(user: User, package: Path) -> Done:
        done = user.run("verify", str(package), "--provider", "cpu")
        if done.code == 0 and (differing := _differing(materials, package)):
            raise LawBrokenError(f"verify calls a package whole in which {differing} differs")
        return done

    return _attack("packages: verify", materials, command, until=until, seed=seed, most=most)


def _attack(
    name: str,
    materials: Materials,
    command: Callable[[User, Path], Done],
    *,
    until: float,
    seed: int,
    most: int,
    toys: bool = False,
) -> Figures:
    figures = Figures(attack=name)
    with materials.user(name.replace(": ", "-")) as user:

        def check(case: Case) -> None:
            kind, changes = case
            package = mutations.copy(_original(materials, kind), user.home / "package", linked=False)
            for change in changes:
                change.apply(package)
            image = user.home / "image.png"
            clear([image])
            with user.writing_only(image):
                done = command(user, package)
            figures.count(end_of(done))

        kinds = ["toy"] * 3 if toys else []
        kinds += [variant for variant in materials.variants if not toys or _draws_alone(variant)]
        cases = st.sampled_from(kinds).flatmap(
            lambda kind: st.tuples(st.just(kind), mutations.of_folder(_original(materials, kind)))
        )
        search(cases, check, figures, until=until, seed=seed, most=most)
    figures.slowest_seconds = user.slowest_seconds
    return figures


def _draws_alone(variant: str) -> bool:
    return "inpainting" not in variant and "refiner" not in variant


def _original(materials: Materials, kind: str) -> Path:
    return materials.toy() if kind == "toy" else materials.package(kind)


def _differing(materials: Materials, package: Path) -> str:
    """Name a file that is not as in the package it was copied from, where the manifest is."""
    for variant in materials.variants:
        original = materials.package(variant)
        try:
            same = (package / "manifest.json").read_bytes() == (original / "manifest.json").read_bytes()
        except OSError:
            return ""
        if not same:
            continue
        for path in sorted(original.rglob("*")):
            other = package / path.relative_to(original)
            if path.is_file() and (not other.is_file() or other.read_bytes() != path.read_bytes()):
                return path.relative_to(original).as_posix()
    return ""

"""What is attacked: tiny checkpoints of every family, their packages, and a folder to work in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.checkpoints import VARIANTS, make_variant
from tests.robustness.user import User
from tests.sdsetup import toy_package


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Files that attacks copy, and a place for them.

    Attributes:
        work: Each attack works in a folder of its own in it.
        kept: Holds checkpoints, traced graphs and packages, for this run and the next ones.
        variants: Names of the tiny checkpoints to attack.
    """

    work: Path
    kept: Path
    variants: tuple[str, ...] = tuple(VARIANTS)

    def user(self, name: str, *, endpoint: str = "http://127.0.0.1:9") -> User:
        """Return a user with a home of its own, who shares the traced graphs."""
        home = self.work / name / "home"
        home.mkdir(parents=True, exist_ok=True)
        return User(endpoint=endpoint, home=home, caches=self.kept / "caches")

    def checkpoint(self, variant: str) -> Path:
        """Return a tiny checkpoint, made by the first call."""
        return self._once(f"checkpoint-{variant}", lambda path: make_variant(path, VARIANTS[variant]))

    def toy(self) -> Path:
        """Return a package of a few operators that makes images in milliseconds."""
        return self._once("toy", lambda path: toy_package.write(path))

    def package(self, variant: str) -> Path:
        """Return the package of a tiny checkpoint, converted by the first call, which traces its graphs."""

        def convert(path: Path) -> None:
            with self.user("converting") as user:
                user.hang_seconds = 1200
                done = user.run(
                    *("convert", str(self.checkpoint(variant)), "--target", "cpu", "--no-verify"),
                    *("-o", str(path)),
                )
                assert done.code == 0, done.stderr

        return self._once(f"package-{variant}", convert)

    def _once(self, name: str, make: Callable[[Path], object]) -> Path:
        path = self.kept / name.replace(" ", "-")
        if not path.exists():
            self.kept.mkdir(parents=True, exist_ok=True)
            make(path)
        return path


def clear(paths: Iterable[Path]) -> None:
    """Remove files and folders, whatever they have become."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

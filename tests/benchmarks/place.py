"""Where a benchmark's processes run: a provider, and the Python that has it."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import card_memory

OPTIONS = """``--provider`` is the target of the provider. ``--python COMMAND`` is how its Python is started
where it is another than this one, and ``--seen-as FOLDER`` what the folder that holds PACKAGE is called
there: a Windows Python under Wine, see ``tests/windows/card``.
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where processes run.

    Attributes:
        provider: Target of the provider.
        python: How its Python is started.
        seen_as: What the folder that holds packages is called by that Python; empty if the same.
    """

    provider: str
    python: tuple[str, ...]
    seen_as: str

    @staticmethod
    def add_options(parser: argparse.ArgumentParser, provider: str = "cpu") -> None:
        """Add the options that :meth:`of` reads, with this default of the provider."""
        parser.add_argument("--provider", choices=["cpu", "cuda", "webgpu", "directml"], default=provider)
        parser.add_argument("--python", default=sys.executable, metavar="COMMAND")
        parser.add_argument("--seen-as", default="", metavar="FOLDER")

    @classmethod
    def of(cls, options: argparse.Namespace) -> Place:
        """Return the place that was asked for."""
        python = tuple(shlex.split(options.python))
        return cls(provider=options.provider, python=python, seen_as=options.seen_as)

    def named(self, path: Path) -> str:
        """Return a path in that folder as that Python takes it."""
        separator = "\\" if "\\" in self.seen_as else "/"
        return f"{self.seen_as}{separator}{path.name}" if self.seen_as else str(path)

    def run(self, module: str, package: Path, *arguments: str) -> tuple[Any, int | None]:
        """Run a module on a package there.

        Returns:
            What it printed last, read as JSON, and the peak of the card's memory in bytes above what was in
            use before; None without a card.
        """
        command = [*self.python, "-m", module, self.named(package), "--provider", self.provider, *arguments]
        with card_memory.watch() as samples:
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        done.check_returncode()
        return json.loads(done.stdout.splitlines()[-1]), max((used for _, used in samples), default=None)

"""Packages of the checkpoint that ships: real conversions that need no PyTorch, in about a second each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conversions.checkpoint.folder import Checkpoint, open_folder
from conversions.conversion import convert
from conversions.events import Listener, ignore
from conversions.options import Options
from conversions.package.layout import Package
from conversions.plan import make_plan
from sdsetup.demo import checkpoint_path


def demo_package(
    output: Path, checkpoint: Checkpoint | None = None, listener: Listener = ignore, **options: Any
) -> Package:
    """Convert the checkpoint that ships, or another one whose graphs are at hand, for the CPU."""
    opened = open_folder(checkpoint_path()) if checkpoint is None else checkpoint
    plan = make_plan(opened, Options(**{"target": "cpu", **options}), None)
    return convert(
        plan, opened, output, tool_version="1", graph_cache=None, checks=None, listener=listener
    ).package

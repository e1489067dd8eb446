"""Checkpoints, traced graphs and packages that many tests share, made once for a whole test run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.checkpoints import make_tiny
from tests.hub_server import HubServer
from tests.hub_server.here import asked_here


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all worker processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def _once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    with FileLock(folder / f"{name}.lock"):
        path = folder / name
        if not path.exists():
            make(path)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(shared: Path) -> Path:
    """A Stable Diffusion with all five submodels and random weights; tests must not change it."""
    return _once(shared, "tiny", make_tiny)


@pytest.fixture(scope="session")
def graph_cache(shared: Path, tiny_checkpoint: Path) -> Path:
    """Traced graphs of the tiny checkpoint."""
    from conversions.checkpoint.folder import open_folder
    from tests.traced import trace_once

    trace_once(open_folder(tiny_checkpoint), shared / "graphs")
    return shared / "graphs"


@pytest.fixture(scope="session")
def make_package(graph_cache: Path) -> Callable[..., Path]:
    """Convert a checkpoint without verification: ``make_package(checkpoint, output, target="cpu")``."""
    from conversions.checkpoint.folder import open_folder
    from conversions.conversion import convert
    from conversions.events import ignore
    from conversions.options import Options
    from conversions.plan import make_plan

    def make(checkpoint: Path, output: Path, **options: object) -> Path:
        opened = open_folder(checkpoint)
        plan = make_plan(opened, Options(**options), graph_cache)
        convert(
            plan, opened, output, tool_version="test", graph_cache=graph_cache, checks=None, listener=ignore
        )
        return output

    return make


@pytest.fixture(scope="session")
def tiny_package(shared: Path, tiny_checkpoint: Path, make_package: Callable[..., Path]) -> Path:
    """The tiny checkpoint as an fp16 package for the CPU; tests must not change it."""
    return _once(shared, "package", lambda path: make_package(tiny_checkpoint, path, target="cpu"))


@pytest.fixture
def hub_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that this process asks, with nothing on it; the cache is empty and nobody is logged in."""
    with HubServer() as made, asked_here(made, tmp_path, monkeypatch):
        yield made

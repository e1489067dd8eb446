"""A minute or two of ``python -m tests.robustness``, the same cases each time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("links and limits are made the POSIX way", allow_module_level=True)

from tests.robustness import arguments, checkpoints, hub_answers, kills, packages, shortages
from tests.robustness.materials import Materials
from tests.robustness.search import Figures

pytestmark = pytest.mark.torch
# Time for a machine that is busy with other tests; each has its number of cases, and most end long before.
_SECONDS = 300.0
CASES = (
    (checkpoints.plan, 120),
    (checkpoints.convert, 12),
    (packages.inspect, 80),
    (packages.generate, 60),
    (packages.verify, 30),
    (arguments.every_option, 15),
    (hub_answers.answers, 20),
    (kills.convert, 2),
    (kills.generate, 2),
    (kills.download, 2),
    (shortages.at_once, 2),
    (shortages.full_disk, 2),
)


@pytest.fixture(scope="module")
def materials(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, graph_cache: Path, shared: Path
) -> Materials:
    """The tiny Stable Diffusion 1.x alone, whose graphs are traced for other tests too."""
    kept = tmp_path_factory.mktemp("kept")
    (kept / "caches" / "sdsetup").mkdir(parents=True)
    (kept / "caches" / "sdsetup" / "graphs").symlink_to(graph_cache)
    (kept / "checkpoint-stable-diffusion").symlink_to(tiny_checkpoint)
    return Materials(work=tmp_path_factory.mktemp("work"), kept=kept, variants=("stable-diffusion",))


@pytest.mark.parametrize(("attack", "most"), CASES, ids=lambda value: getattr(value, "__module__", "") or "")
def test_nothing_is_found(materials: Materials, attack: Callable[..., Figures], most: int) -> None:
    figures = attack(materials, until=time.monotonic() + _SECONDS, seed=1, most=most)
    assert figures.cases >= min(most, 4)
    assert not figures.faults, "\n".join(figures.faults)

"""What the forecast says of this machine's card; the cards are made, the graphs are the demo's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conversions.checkpoint.folder import open_folder
from conversions.forecast import forecast
from conversions.options import Options
from conversions.pipeline_graphs import PipelineGraphs, package_graphs
from conversions.plan import planned_graphs
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from sdsetup import demo
from sdsetup.imaging.image_memory import ImageMemory, image_memory, package_memory
from sdsetup.machine import adapters
from sdsetup.machine.adapters import Adapter
from tests.demo_package import demo_package

_MIB = 2**20


@pytest.fixture(scope="module")
def models() -> PipelineGraphs:
    checkpoint = open_folder(demo.checkpoint_path())
    assert checkpoint.recipe.native == ImageSize(width=128, height=128)
    planned = planned_graphs(checkpoint, Options(target="directml"), None)
    assert planned is not None
    return planned


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, models: PipelineGraphs) -> Callable[..., ImageMemory]:
    def told(*cards: Adapter) -> ImageMemory:
        monkeypatch.setattr(adapters, "read", lambda: cards)
        return image_memory(models, ImageSize(width=128, height=128))

    return told


def test_a_larger_card_makes_larger_images(on: Callable[..., ImageMemory]) -> None:
    small = on(Adapter(index=0, name="small", vram_bytes=900 * _MIB))
    large = on(Adapter(index=0, name="large", vram_bytes=4096 * _MIB))
    assert small.largest_side is not None
    assert large.largest_side is not None
    assert 0 < small.largest_side < large.largest_side
    assert (small.card, large.card) == ("small", "large")
    told = small.as_dict()
    assert (told["card"], told["largest_side"]) == ("small", small.largest_side)


def test_a_card_that_is_too_small_is_told(on: Callable[..., ImageMemory]) -> None:
    assert on(Adapter(index=0, name="tiny", vram_bytes=_MIB)).largest_side == 0


def test_an_integrated_card_has_what_it_shares(on: Callable[..., ImageMemory]) -> None:
    alone = on(Adapter(index=0, name="apu", vram_bytes=_MIB, integrated=True))
    shares = on(Adapter(index=0, name="apu", vram_bytes=_MIB, shared_bytes=4096 * _MIB, integrated=True))
    assert alone.largest_side == 0
    assert shares.largest_side


@pytest.mark.parametrize(
    "cards",
    [
        (),
        (Adapter(index=0, name="silent"),),
        (Adapter(index=0, name="llvmpipe", vram_bytes=4096 * _MIB, software=True),),
    ],
    ids=["none", "tells no memory", "software"],
)
def test_without_a_card_that_tells_nothing_is_claimed(
    on: Callable[..., ImageMemory], cards: tuple[Adapter, ...]
) -> None:
    memory = on(*cards)
    assert (memory.card, memory.largest_side) == ("", None)
    assert memory.as_dict()["cpu_bytes"] > 0


@pytest.mark.parametrize(
    ("target", "ran_by", "counted"),
    [("cpu", "webgpu", "webgpu"), ("directml", "webgpu", "webgpu"), ("directml", "cpu", "directml")],
)
def test_a_package_needs_what_it_takes_where_it_ran(
    target: str, ran_by: str, counted: str, tmp_path: Path
) -> None:
    package = demo_package(tmp_path / "package", target=target)
    size = ImageSize(width=512, height=512)
    taken = {
        each: forecast(package_graphs(package).run_by(provider_for(each)), size).device_bytes
        for each in ("cpu", "directml", "webgpu")
    }
    assert len(set(taken.values())) == len(taken)
    needed = package_memory(package, provider_for(ran_by).name, size).forecast
    assert needed.device_bytes == taken[counted]

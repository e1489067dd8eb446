"""When images are decoded in tiles, and what is said of it."""

from __future__ import annotations

from functools import partial

import pytest

from conversions.events import Notice
from conversions.forecast import Forecast, forecast
from conversions.package.layout import Package
from conversions.pipeline_graphs import package_graphs
from conversions.providers.devices import CPU, Device
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from sdsetup.runtime import memory_plan, start
from sdsetup.runtime.package import open_for_images
from tests.demo_package import demo_package
from tests.sdsetup import toy_package

DIRECTML = provider_for("directml")
LARGE = ImageSize(width=1536, height=1536)
TILED = {"vae_decoder": 512}
UNUSED = frozenset({"vae_encoder"})

make_plan = partial(memory_plan.make_plan, provider=DIRECTML, unused=UNUSED)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return demo_package(tmp_path_factory.mktemp("tiles") / "package", precision="fp16")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return open_for_images(toy_package.write(tmp_path_factory.mktemp("toys") / "toy"))


def needed(package: Package, tiles: dict[str, int]) -> Forecast:
    return forecast(package_graphs(package).run_by(DIRECTML).in_tiles(tiles).without(UNUSED), LARGE)


def decoder_bytes(package: Package, tiles: dict[str, int]) -> int:
    (need,) = (need for need in needed(package, tiles).needs if need.submodel == "vae_decoder")
    return need.total_bytes


def test_smaller_tiles_need_less_and_keep_as_much_between_pieces(package: Package) -> None:
    sizes = [decoder_bytes(package, {"vae_decoder": side} if side else {}) for side in (0, 1024, 512)]
    assert sizes[0] > sizes[1] > sizes[2]
    for side in (1024, 512):
        (need,) = (n for n in needed(package, {"vae_decoder": side}).needs if n.submodel == "vae_decoder")
        # Three values of 32 channels in float16: what enters a block of the last resolution, the result of
        # the block's first convolution, and what the piece is about to give.
        assert need.kept_bytes == 3 * 32 * LARGE.width * LARGE.height * 2
        assert need.cpu_bytes > need.kept_bytes


def test_a_decoder_runs_in_tiles_exactly_where_it_does_not_fit(package: Package) -> None:
    whole = needed(package, {})
    assert not make_plan(package, LARGE, whole.staged_bytes).tiles
    plan = make_plan(package, LARGE, whole.staged_bytes - 1)
    assert plan.tiles == TILED
    assert plan.one_at_a_time
    assert plan.peak_bytes == needed(package, TILED).staged_bytes
    memory_plan.demand(plan, whole.staged_bytes - 1)


def test_what_does_not_run_is_not_counted(package: Package) -> None:
    budget = needed(package, {}).staged_bytes
    assert not make_plan(package, LARGE, budget - 1, one_at_a_time=True).tiles.get("vae_encoder")
    nothing = memory_plan.make_plan(
        package, LARGE, budget - 1, provider=DIRECTML, unused=UNUSED | {"vae_decoder"}
    )
    assert not nothing.tiles
    assert nothing.peak_bytes is not None and nothing.peak_bytes < budget


def test_the_encoder_runs_in_tiles_where_it_does_not_fit(package: Package) -> None:
    budget = needed(package, TILED).staged_bytes
    plan = memory_plan.make_plan(package, LARGE, budget, provider=DIRECTML)
    assert plan.tiles == {"vae_decoder": 512, "vae_encoder": 512}
    assert plan.peak_bytes is not None and plan.peak_bytes <= budget


def test_what_is_asked_for_is_done(package: Package) -> None:
    assert make_plan(package, LARGE, None, tiled=True).tiles == {"vae_decoder": 256}
    assert make_plan(package, LARGE, 2**40, tiled=True).tiles == {"vae_decoder": 256}
    assert not make_plan(package, LARGE, 2**30, tiled=False).tiles
    assert make_plan(package, LARGE, 2**20, tiled=True).tiles == {"vae_decoder": 256}


@pytest.mark.parametrize(
    ("side", "tiles"),
    [
        (512, {"vae_decoder": 384}),  # one tile of 512 needs more than the whole
        (1536, TILED),  # the low resolutions, which run whole, need more than smaller tiles do
    ],
)
def test_tiles_are_no_smaller_than_what_saves_memory(
    package: Package, side: int, tiles: dict[str, int]
) -> None:
    assert make_plan(package, ImageSize(width=side, height=side), 2**20).tiles == tiles


def test_a_decoder_that_cannot_be_cut_runs_whole_and_says_why(
    toy: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(toy, LARGE, None, tiled=True)
    assert not plan.tiles
    assert plan.whole_because[0].startswith("vae_decoder runs in one piece: Resize")
    monkeypatch.setattr(start, "list_devices", lambda: [CPU])
    heard: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Notice):
            heard.append(event.text)

    start.start(toy, start.DeviceRequest(vae_tiling=True), toy.recipe.native, listen).close()
    assert [text for text in heard if text.startswith("vae_decoder runs in one piece: Resize")]
    heard.clear()
    start.start(toy, start.DeviceRequest(), toy.recipe.native, listen).close()
    assert not [text for text in heard if "piece" in text]


def test_tiles_are_said(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Device(provider=DIRECTML, name="Card", discrete=True, memory_bytes=2**40)
    monkeypatch.setattr(start, "list_devices", lambda: [card, CPU])
    heard: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Notice):
            heard.append(event.text)

    whole = needed(package, {}).staged_bytes
    begin = start.DeviceRequest(vram_bytes=whole - 1)
    start.start(package, begin, LARGE, listen, unused=UNUSED).close()
    assert heard == [f"running on {card}, one submodel at a time, decoding in tiles of 512x512."]
    heard.clear()
    start.start(package, start.DeviceRequest(vram_bytes=whole), LARGE, listen, unused=UNUSED).close()
    assert heard == [f"running on {card}, one submodel at a time."]


def test_the_cpu_decodes_in_tiles_where_main_memory_is_too_small(package: Package) -> None:
    plan = memory_plan.MemoryPlan(one_at_a_time=True)
    # So large that the decoder needs more than attention does: on the CPU, scores are not sliced.
    on_cpu = partial(
        memory_plan.plan_on_cpu, plan, package, ImageSize(width=384, height=384), provider=CPU.provider
    )
    only = frozenset(package_graphs(package).models) - {"vae_decoder"}
    whole = on_cpu(2**40, unused=only)
    assert not whole.tiles and whole.peak_bytes
    assert on_cpu(whole.peak_bytes, unused=only) == whole
    tiled = on_cpu(whole.peak_bytes - 1, unused=only)
    assert tiled.tiles == {"vae_decoder": 256}
    assert tiled.peak_bytes and tiled.peak_bytes < whole.peak_bytes
    assert on_cpu(whole.peak_bytes - 1, unused=only, tiled=False) == whole

"""When images are decoded in tiles, and what is said of it."""

from __future__ import annotations

import shutil
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from conversions import pipeline_graphs
from conversions.events import Notice
from conversions.forecast import (
    SESSION_BYTES,
    Forecast,
    forecast,
    peak_activation_bytes,
    weights_bytes,
)
from conversions.package.layout import Package, open_package
from conversions.pipeline_graphs import package_graphs
from conversions.providers.devices import CPU, Device
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from conversions.tiling.cut import Cut, cut
from sdsetup.errors import SetupError
from sdsetup.runtime import memory_plan, start
from sdsetup.runtime.memory_plan import Use
from sdsetup.runtime.package import open_for_images
from tests.demo_package import demo_package
from tests.sdsetup import toy_package

DIRECTML = provider_for("directml")
LARGE = ImageSize(width=1536, height=1536)
TILED = {"vae_decoder": 512}
UNUSED = frozenset({"vae_encoder"})


def make_plan(
    package: Package,
    size: ImageSize,
    budget_bytes: int | None,
    *,
    unused: frozenset[str] = UNUSED,
    **options: Any,
) -> memory_plan.MemoryPlan:
    use = Use(package=package, unused=unused)
    return memory_plan.make_plan((use,), size, budget_bytes, provider=DIRECTML, **options)


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


def test_the_largest_part_on_the_cpu_is_another_than_on_the_device(package: Package) -> None:
    size = ImageSize(width=256, height=256)
    graphs = package_graphs(package).run_by(DIRECTML).in_tiles({"vae_decoder": 128})
    (need,) = forecast(graphs.only(["vae_decoder"]), size).needs
    parts, cpu = graphs.parts("vae_decoder", size), provider_for("cpu")
    taken = [
        weights_bytes(part.fixed())
        + max((4 * prod(value.shape.numpy()) for value in halves_of(part.model)), default=0)
        + int(cpu.activation_factor * peak_activation_bytes(part.fixed(), wide=True, flash_attention=True))
        for part in parts.graphs
    ]
    assert need.cpu_bytes == max(taken) + parts.kept_bytes + SESSION_BYTES


def halves_of(model: ir.Model) -> list[Any]:
    return [value for value in model.graph.initializers.values() if value.dtype == ir.DataType.FLOAT16]


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
    nothing = make_plan(package, LARGE, budget - 1, unused=UNUSED | {"vae_decoder"})
    assert not nothing.tiles
    assert nothing.peak_bytes is not None and nothing.peak_bytes < budget


def test_the_encoder_runs_in_tiles_where_it_does_not_fit(package: Package) -> None:
    budget = needed(package, TILED).staged_bytes
    plan = make_plan(package, LARGE, budget, unused=frozenset())
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


def test_every_reason_stays_and_is_told_where_the_budget_is_too_small(
    package: Package, toy: Package, tmp_path: Path
) -> None:
    """A decoder that gains from tiles, beside an encoder that cannot be cut."""
    mixed = tmp_path / "mixed"
    shutil.copytree(package.folder, mixed)
    encoder = mixed / "vae_encoder" / "model.onnx"
    model = onnx.load(encoder, load_external_data=False)
    image = next(iter(model.graph.input)).name
    first = next(node for node in model.graph.node if image in node.input)
    place = list(first.input).index(image)
    first.input[place] = "turned"
    turn = onnx.helper.make_node("Transpose", [image], ["turned"], perm=[0, 1, 3, 2])
    model.graph.node.insert(0, turn)
    encoder.unlink()
    onnx.save(model, encoder)
    opened = open_package(mixed)
    plan = make_plan(opened, LARGE, 2**20, unused=frozenset())
    assert plan.tiles == TILED
    assert [reason[:32] for reason in plan.whole_because] == ["vae_encoder runs in one piece: T"]
    with pytest.raises(SetupError) as caught:
        memory_plan.demand(plan, 2**20)
    assert plan.whole_because[0] in caught.value.message
    assert "in tiles of 512x512 " in caught.value.message


def test_a_tight_plan_cuts_the_decoder_once(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    times = []

    def counted(model: ir.Model) -> Cut:
        times.append(model)
        return cut(model)

    for module in (memory_plan, pipeline_graphs):
        monkeypatch.setattr(module, "cut", counted)
    plan = make_plan(package, ImageSize(width=512, height=512), 2**20)
    assert plan.tiles == {"vae_decoder": 384}
    assert len(times) == 1
    make_plan(package, LARGE, 2**20, tiled=True)
    assert len(times) == 2


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
    only = frozenset(package_graphs(package).models) - {"vae_decoder"}
    # So large that the decoder needs more than attention does: on the CPU, scores are not sliced.
    on_cpu = partial(
        memory_plan.plan_on_cpu,
        plan,
        (Use(package=package, unused=only),),
        ImageSize(width=384, height=384),
        provider=CPU.provider,
    )
    whole = on_cpu(2**40)
    assert not whole.tiles and whole.peak_bytes
    assert on_cpu(whole.peak_bytes) == whole
    tiled = on_cpu(whole.peak_bytes - 1)
    assert tiled.tiles == {"vae_decoder": 256}
    assert tiled.peak_bytes and tiled.peak_bytes < whole.peak_bytes
    assert on_cpu(whole.peak_bytes - 1, tiled=False) == whole

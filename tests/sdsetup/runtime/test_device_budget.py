"""What is planned for on cards that live on main memory or do not tell theirs; the adapters are made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conversions.events import Event, Notice
from conversions.forecast import forecast
from conversions.package.layout import Package
from conversions.pipeline_graphs import package_graphs
from conversions.providers import devices as of_onnxruntime
from conversions.providers.devices import CPU, Device
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from sdsetup.machine import adapters
from sdsetup.machine.adapters import Adapter
from sdsetup.runtime import devices, start
from sdsetup.runtime.device_budget import DeviceBudget, budget_of
from sdsetup.runtime.memory_plan import Use
from tests.demo_package import demo_package

GIB = 2**30
CARD = Device(provider=provider_for("directml"), name="Radeon", discrete=True, memory_bytes=8 * GIB)
INTEGRATED = replace(CARD, name="Graphics", discrete=False, memory_bytes=GIB // 2)
SILENT = replace(CARD, discrete=None, memory_bytes=None)


def read(monkeypatch: pytest.MonkeyPatch, *cards: Adapter) -> None:
    monkeypatch.setattr(adapters, "read", lambda: cards)


def test_a_card_has_its_own_memory_and_the_cpu_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    read(monkeypatch)
    assert budget_of(CARD, 64 * GIB) == DeviceBudget(size_bytes=8 * GIB)
    assert budget_of(CPU, 64 * GIB) == DeviceBudget(size_bytes=None)
    assert budget_of(replace(CARD, discrete=None), 64 * GIB) == DeviceBudget(size_bytes=8 * GIB)


def test_an_integrated_one_has_what_the_system_shares_or_half(monkeypatch: pytest.MonkeyPatch) -> None:
    apu = Adapter(index=0, name="Graphics", vram_bytes=GIB // 2, shared_bytes=7 * GIB, integrated=True)
    read(monkeypatch, Adapter(index=0, name="Radeon", vram_bytes=8 * GIB), apu)
    shared = budget_of(INTEGRATED, 16 * GIB)
    assert shared.size_bytes == 7 * GIB + GIB // 2
    assert "lets it have 7.5 GiB" in shared.assumed
    for cards in ((), (replace(apu, shared_bytes=None),), (replace(apu, name="Another"),)):
        read(monkeypatch, *cards)
        half = budget_of(INTEGRATED, 16 * GIB)
        assert half.size_bytes == 8 * GIB
        assert half.assumed == "Graphics lives on main memory: half of main memory is planned for, 8.0 GiB"


def test_the_system_knows_that_a_nameless_device_is_integrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime tells of WebGPU's devices on Linux neither a name nor whether they are integrated."""
    apu = Adapter(
        index=0, name="Graphics", vendor_id=0x1002, device_id=0x164E,
        vram_bytes=GIB // 2, shared_bytes=8 * GIB, integrated=True,
    )  # fmt: skip
    read(monkeypatch, apu)
    nameless = replace(SILENT, provider=provider_for("webgpu"), name="", unnamed_pci=(0x1002, 0x164E))
    monkeypatch.setattr(of_onnxruntime, "list_devices", lambda: (nameless, CPU))
    device, _ = devices.list_devices()
    assert (device.name, device.discrete) == ("Graphics", False)
    assert budget_of(device, 16 * GIB).size_bytes == 8 * GIB + GIB // 2


def test_the_system_knows_what_a_provider_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    read(monkeypatch, Adapter(index=0, name="Radeon", vram_bytes=4 * GIB, shared_bytes=7 * GIB))
    assert budget_of(SILENT, 16 * GIB) == DeviceBudget(size_bytes=4 * GIB)
    read(monkeypatch, Adapter(index=0, name="Radeon"))
    assert budget_of(SILENT, 16 * GIB).assumed.startswith("Radeon does not tell its memory: half")

    def fails() -> tuple[Adapter, ...]:
        raise OSError("no DXGI")

    monkeypatch.setattr(adapters, "read", fails)
    assert budget_of(SILENT, 16 * GIB).size_bytes == 8 * GIB


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return demo_package(tmp_path_factory.mktemp("budgets") / "package", precision="fp16")


def test_large_images_of_an_integrated_gpu_are_decoded_in_tiles(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = ImageSize(width=1536, height=1536)
    use = Use(package=package, unused=frozenset({"vae_encoder"}))
    whole = forecast(package_graphs(package).run_by(CARD.provider).without(use.unused), size).staged_bytes
    monkeypatch.setattr(start, "list_devices", lambda: [INTEGRATED, CPU])
    for shared_bytes, tiles in ((whole - 1 - GIB // 2, {"vae_decoder": 512}), (whole, {})):
        card = Adapter(
            index=0, name="Graphics", vram_bytes=GIB // 2, shared_bytes=shared_bytes, integrated=True
        )
        read(monkeypatch, card)
        heard: list[str] = []

        def listen(event: Event, heard: list[str] = heard) -> None:
            if isinstance(event, Notice):
                heard.append(event.text)

        begun = start.prepare((use,), start.DeviceRequest(), size, listen)
        assert begun.plan.tiles == tiles
        assert begun.plan.one_at_a_time
        assert ("decoding in tiles" in heard[0]) == bool(tiles)
        assert heard[1].endswith("that is planned for; --vram GIB plans for another amount.")
        assert len(heard) == 2
    heard.clear()
    begun = start.prepare((use,), start.DeviceRequest(vram_bytes=whole - 1), size, listen)
    assert begun.plan.tiles == {"vae_decoder": 512}
    assert len(heard) == 1

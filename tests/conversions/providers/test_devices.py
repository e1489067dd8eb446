"""Devices as ONNX Runtime lists them; this machine has none but the CPU, so the entries are written here."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from conversions.providers import devices
from conversions.providers.devices import CPU, Device, list_devices, listed_by_onnxruntime
from conversions.providers.table import provider_for

DML, WEBGPU, OPENVINO = (provider_for(each) for each in ("directml", "webgpu", "openvino"))


def entry(
    provider: str = DML.name,
    *,
    vendor: str = "",
    pci: tuple[int, int] = (0x1002, 0x73BF),
    kind: str = "GPU",
    own: dict[str, str] | None = None,
    **metadata: str,
) -> Any:
    """Return an entry as ONNX Runtime's ``OrtEpDevice`` has it."""
    device = SimpleNamespace(
        vendor=vendor,
        vendor_id=pci[0],
        device_id=pci[1],
        type=SimpleNamespace(name=kind),
        metadata=metadata,
    )
    return SimpleNamespace(ep_name=provider, ep_metadata=own or {}, device=device)


def listed(monkeypatch: pytest.MonkeyPatch, *entries: Any, available: tuple[str, ...] = ()) -> list[Device]:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*available, CPU.provider.name])
    monkeypatch.setattr(devices, "listed_by_onnxruntime", lambda: list(entries))
    return list(list_devices())


@pytest.mark.parametrize(
    ("vendor", "number", "name"),
    [
        ("", 0x1002, "AMD GPU"),
        ("", 0x10DE, "NVIDIA GPU"),
        ("", 0x8086, "Intel GPU"),
        ("", 0x106B, "Apple GPU"),
        ("", 0x1234, "unnamed GPU"),
        ("Qualcomm", 0x5143, "Qualcomm GPU"),
        ("Advanced", 0x1002, "Advanced GPU"),
    ],
)
def test_hardware_without_a_description_goes_by_its_vendor(
    vendor: str, number: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, cpu = listed(monkeypatch, entry(WEBGPU.name, vendor=vendor, pci=(number, 7)))
    assert (device.name, device.unnamed_pci) == (name, (number, 7))
    assert cpu is CPU


def test_a_description_tells_all_and_a_renderer_in_software_is_no_unnamed_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, software, _ = listed(
        monkeypatch,
        entry(
            Description="AMD Radeon RX 6800",
            DxgiAdapterNumber="3",
            DxgiVideoMemory="16384 MB",
            DxgiHighPerformanceIndex="2",
            Discrete="0",
        ),
        entry(kind="CPU", DxgiAdapterNumber="x", DxgiVideoMemory="", Discrete="?"),
    )
    assert card == Device(
        provider=DML,
        name="AMD Radeon RX 6800",
        number=3,
        discrete=False,
        memory_bytes=16 * 2**30,
        rank=2,
        listed=0,
    )
    assert (software.software, software.unnamed_pci, software.number) == (True, (0, 0), 1)
    assert (software.memory_bytes, software.rank, software.discrete, software.listed) == (None, None, None, 1)


def test_what_a_provider_says_counts_beside_what_the_hardware_says(monkeypatch: pytest.MonkeyPatch) -> None:
    device, _ = listed(monkeypatch, entry(own={"Description": "RX 580", "DxgiAdapterNumber": "4"}))
    assert (device.name, device.number) == ("RX 580", 4)


def test_devices_of_several_providers_are_listed_in_the_order_of_preference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = listed(
        monkeypatch,
        entry(WEBGPU.name, Description="one"),
        entry(DML.name, Description="two"),
        entry(WEBGPU.name, Description="three"),
        available=("MIGraphXExecutionProvider",),
    )
    assert [str(each) for each in found] == [
        "two (DirectML 0)",
        "MIGraphX device (MIGraphX 0)",
        "one (WebGPU 0)",
        "three (WebGPU 1)",
        "CPU (CPU 0)",
    ]
    assert [each.listed for each in found] == [1, None, 0, 2, None]


def test_openvino_names_its_devices_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.capi import _pybind_state

    names = ["CPU", "GPU.0", "GPU.1", "NPU", "GNA"]
    monkeypatch.setattr(_pybind_state, "get_available_openvino_device_ids", lambda: names, raising=False)
    *found, _ = listed(monkeypatch, available=(OPENVINO.name,))
    assert [(each.name, each.number, each.rank, each.options) for each in found] == [
        ("OpenVINO CPU", 0, 1, {"device_type": "CPU"}),
        ("OpenVINO GPU.0", 1, 0, {"device_type": "GPU.0"}),
        ("OpenVINO GPU.1", 2, 0, {"device_type": "GPU.1"}),
        ("OpenVINO NPU", 3, 2, {"device_type": "NPU"}),
    ]


@pytest.mark.parametrize(("discrete", "integrated"), [(True, False), (False, True), (None, None)])
def test_a_device_ranks_by_what_is_known_of_it(discrete: bool | None, integrated: bool | None) -> None:
    rank = Device(provider=DML, name="x", number=3, discrete=discrete, memory_bytes=7, rank=2).adapter_rank
    assert (rank.index, rank.software, rank.integrated) == (3, False, integrated)
    assert (rank.rank, rank.memory_bytes) == (2, 7)
    assert Device(provider=DML, name="x").options == {"device_id": "0"}


def test_a_plug_in_that_cannot_be_loaded_is_passed_over_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime itself refuses the library."""
    library = tmp_path / "libnothing.so"
    plugin = f"def get_library_path():\n    return {str(library)!r}\n"
    (tmp_path / f"{WEBGPU.plugin}.py").write_text(plugin, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, WEBGPU.plugin, raising=False)
    if WEBGPU.name in {each.ep_name for each in onnxruntime.get_ep_devices()}:
        pytest.skip("this machine has the plug-in")
    with caplog.at_level(logging.WARNING):
        found = listed_by_onnxruntime()
    assert WEBGPU.name not in {each.ep_name for each in found}
    (record,) = caplog.records
    assert record.getMessage().startswith("onnxruntime-ep-webgpu cannot be used: ")
    assert library.name in record.getMessage()
    monkeypatch.delitem(sys.modules, WEBGPU.plugin, raising=False)

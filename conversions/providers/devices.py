"""List the devices that the installed ONNX Runtime can run on, with their product names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from conversions.providers.adapter_ranking import AdapterRank, is_software
from conversions.providers.cuda_devices import cuda_devices
from conversions.providers.table import PROVIDERS, Provider, provider_for

logger = logging.getLogger(__name__)

_MEBIBYTE = 2**20
_VENDORS: Mapping[int, str] = {0x1002: "AMD", 0x10DE: "NVIDIA", 0x8086: "Intel", 0x106B: "Apple"}


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device of one execution provider.

    Attributes:
        provider: Row of the provider table.
        name: Product name, for example "Radeon RX 6700 XT".
        number: The provider's index of the device; on DirectML DXGI's, where 0 drives the first display.
        option: Value of the provider's ``device_option`` that selects it; empty means its number.
        discrete: Whether it is a discrete GPU; None when unknown.
        memory_bytes: Dedicated memory; None when unknown.
        rank: Order by speed, 0 the fastest, on DirectML DXGI's; None when unknown.
        software: Whether it is a software renderer, which is used only when named.
        listed: Index in ONNX Runtime's device list; None when the provider lists no devices.
        unnamed_pci: PCI vendor and device of hardware whose product name ONNX Runtime does not give, so that
            ``name`` is its vendor's; zeros for all other.
        winograd: Whether sessions may compute convolutions by Winograd, which takes more memory. It is the
            same device either way.
    """

    provider: Provider
    name: str
    number: int = 0
    option: str = ""
    discrete: bool | None = None
    memory_bytes: int | None = None
    rank: int | None = None
    software: bool = False
    listed: int | None = None
    unnamed_pci: tuple[int, int] = (0, 0)
    winograd: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.provider.label} {self.number})"

    @property
    def adapter_rank(self) -> AdapterRank:
        """Rank among the devices of its provider."""
        return AdapterRank(
            index=self.number,
            software=self.software,
            integrated=None if self.discrete is None else not self.discrete,
            rank=self.rank,
            memory_bytes=self.memory_bytes,
        )

    @property
    def options(self) -> dict[str, str]:
        """Provider options that select this device when it is not in ONNX Runtime's list."""
        chosen = self.provider.device_option
        return {chosen: self.option or str(self.number)} if chosen else {}


CPU = Device(provider=provider_for("cpu"), name="CPU")
"""The CPU, which every ONNX Runtime supports."""


def listed_by_onnxruntime() -> list[Any]:
    """Return ONNX Runtime's device list, with installed plug-in providers registered.

    A plug-in that fails to register is skipped, with a warning in the log.
    """
    import onnxruntime

    known = {entry.ep_name for entry in onnxruntime.get_ep_devices()}
    for provider in PROVIDERS:
        if not provider.plugin or provider.name in known or not find_spec(provider.plugin):
            continue
        onnxruntime.set_default_logger_severity(3)  # errors are raised
        try:
            library = import_module(provider.plugin).get_library_path()
            onnxruntime.register_execution_provider_library(provider.target, library)
        except Exception as error:  # noqa: BLE001 - the library's own exceptions share no other base
            logger.warning("%s cannot be used: %s", provider.package, error)
    return list(onnxruntime.get_ep_devices())


def list_devices() -> tuple[Device, ...]:
    """Return the devices that ONNX Runtime can run on, the CPU last."""
    import onnxruntime

    listed = listed_by_onnxruntime()
    available = {*onnxruntime.get_available_providers(), *(entry.ep_name for entry in listed)}
    devices: list[Device] = []
    for provider in PROVIDERS:
        if provider.name not in available:
            continue
        own = [(place, entry) for place, entry in enumerate(listed) if entry.ep_name == provider.name]
        ask = _LIST_DEVICES.get(provider.target)
        found = ask(provider) if ask is not None else []
        if provider.target == CPU.provider.target:
            devices.append(CPU)
        elif len(own) == len(found) == 1:
            devices.append(replace(found[0], listed=own[0][0]))
        elif own:
            devices += [_from_metadata(provider, place, i, entry) for i, (place, entry) in enumerate(own)]
        else:
            devices += found or [Device(provider=provider, name=f"{provider.label} device")]
    return tuple(devices)


def _from_metadata(provider: Provider, place: int, count: int, listed: Any) -> Device:
    data: Mapping[str, str] = {**listed.ep_metadata, **listed.device.metadata}
    number = data.get(provider.device_metadata, "") if provider.device_metadata else ""
    rank = data.get("DxgiHighPerformanceIndex", "")
    hardware = listed.device
    described = data.get("Description")
    name = described or _plain_name(hardware)
    # A GPU plug-in that reports the processor renders in software.
    software = hardware.type.name == "CPU" or is_software(name, hardware.vendor_id, hardware.device_id)
    return Device(
        provider=provider,
        name=name,
        number=int(number) if number.isdigit() else count,
        discrete={"1": True, "0": False}.get(data.get("Discrete", "")),
        memory_bytes=_megabytes(data.get("DxgiVideoMemory", "")),
        rank=int(rank) if rank.isdigit() else None,
        software=software,
        listed=place,
        unnamed_pci=(0, 0) if described or software else (hardware.vendor_id, hardware.device_id),
    )


def _plain_name(hardware: Any) -> str:
    """Name hardware without a description by vendor and type, for example "AMD GPU"."""
    vendor = hardware.vendor or _VENDORS.get(hardware.vendor_id, "unnamed")
    return f"{vendor} {hardware.type.name}"


def _megabytes(text: str) -> int | None:
    """Read "8176 MB", as ONNX Runtime writes a DXGI adapter's memory."""
    amount = text.split(" ")[0]
    return int(amount) * _MEBIBYTE if amount.isdigit() else None


def _from_cuda(provider: Provider) -> list[Device]:
    return [
        Device(
            provider=provider,
            name=found.name,
            number=number,
            discrete=not found.integrated,
            memory_bytes=found.memory_bytes,
        )
        for number, found in enumerate(cuda_devices())
    ]


def _from_openvino(provider: Provider) -> list[Device]:
    """List OpenVINO's devices, such as "CPU" and "GPU.0": GPUs first, the NPU last.

    Source: ONNX Runtime, docs/execution-providers/OpenVINO-ExecutionProvider.md.
    """
    from onnxruntime.capi import _pybind_state

    order = ("GPU", "CPU", "NPU")
    return [
        Device(provider=provider, name=f"OpenVINO {name}", number=number, option=name, rank=order.index(kind))
        for number, name in enumerate(_pybind_state.get_available_openvino_device_ids())
        if (kind := name.split(".")[0]) in order
    ]


_LIST_DEVICES: Mapping[str, Callable[[Provider], list[Device]]] = {
    "cuda": _from_cuda,
    "openvino": _from_openvino,
}
"""Functions that list the devices of providers missing from ONNX Runtime's list, by target."""

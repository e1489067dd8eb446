"""Which device runs the submodels: chosen once, by name or number, and never swapped silently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from conversions.errors import ConversionError
from conversions.providers import PROVIDERS, Provider, provider_for
from sdsetup.adapters.standing import Standing, foremost, is_software
from sdsetup.errors import SetupError, UsageError

_MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device of one execution provider.

    Attributes:
        provider: Row of the provider table.
        name: What a person calls it, for example "Radeon RX 6700 XT".
        number: The provider's own count; on DirectML DXGI's, where 0 drives the first display.
        discrete: Whether it has memory of its own; None when unknown.
        memory_bytes: Its own memory; None when unknown.
        rank: DXGI's order by speed, 0 the fastest; None when unknown.
        software: Whether it is a program, not a device; such a one has to be asked for.
        listed: Place in ONNX Runtime's device list; None when the provider lists none.
    """

    provider: Provider
    name: str
    number: int = 0
    discrete: bool | None = None
    memory_bytes: int | None = None
    rank: int | None = None
    software: bool = False
    listed: int | None = None

    @property
    def standing(self) -> Standing:
        """What decides between this device and others of its provider."""
        return Standing(
            index=self.number,
            software=self.software,
            integrated=None if self.discrete is None else not self.discrete,
            rank=self.rank,
            memory_bytes=self.memory_bytes,
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.provider.label} {self.number})"


def _megabytes(text: str) -> int | None:
    """Read "8176 MB", as ONNX Runtime writes a DXGI adapter's memory."""
    amount = text.split(" ")[0]
    return int(amount) * _MEBIBYTE if amount.isdigit() else None


def _from_metadata(provider: Provider, place: int, count: int, listed: Any) -> Device:
    data: Mapping[str, str] = {**listed.ep_metadata, **listed.device.metadata}
    number = data.get(provider.device_metadata, "") if provider.device_metadata else ""
    rank = data.get("DxgiHighPerformanceIndex", "")
    name = data.get("Description") or f"{listed.device.vendor or 'unnamed'} device"
    return Device(
        provider=provider,
        name=name,
        number=int(number) if number.isdigit() else count,
        discrete={"1": True, "0": False}.get(data.get("Discrete", "")),
        memory_bytes=_megabytes(data.get("DxgiVideoMemory", "")),
        rank=int(rank) if rank.isdigit() else None,
        software=is_software(name, listed.device.vendor_id, listed.device.device_id),
        listed=place,
    )


def listed_by_onnxruntime() -> list[Any]:
    """Return ONNX Runtime's own device list, with the providers that come as plug-ins."""
    import onnxruntime

    known = {entry.ep_name for entry in onnxruntime.get_ep_devices()}
    for provider in PROVIDERS:
        if provider.plugin and provider.name not in known and find_spec(provider.plugin):
            library = import_module(provider.plugin).get_library_path()
            onnxruntime.register_execution_provider_library(provider.target, library)
    return list(onnxruntime.get_ep_devices())


def list_devices() -> tuple[Device, ...]:
    """Return what this machine's ONNX Runtime can run on, the CPU last."""
    import onnxruntime

    listed = listed_by_onnxruntime()
    available = {*onnxruntime.get_available_providers(), *(entry.ep_name for entry in listed)}
    devices: list[Device] = []
    for provider in PROVIDERS:
        if provider.name not in available:
            continue
        own = [(place, entry) for place, entry in enumerate(listed) if entry.ep_name == provider.name]
        if provider.target == "cpu":
            devices.append(Device(provider=provider, name="CPU"))
        elif own:
            devices += [_from_metadata(provider, place, i, entry) for i, (place, entry) in enumerate(own)]
        else:
            devices.append(Device(provider=provider, name=f"{provider.label} device"))
    return tuple(devices)


def choose_device(
    devices: Sequence[Device],
    *,
    target: str | None = None,
    number: int | None = None,
    name: str | None = None,
) -> Device:
    """Pick the device to run on.

    Without wishes it is the adapter that ``sdsetup.adapters.standing`` puts first, of the first provider in
    the table that has one. A software adapter is taken only by its number or name.

    Args:
        devices: What there is, from ``list_devices``.
        target: Only this provider: a target's name or ONNX Runtime's.
        number: Only this number within the provider.
        name: Only a device whose name holds all of these words, in whatever case.

    Raises:
        UsageError: Nothing fits the wishes, or several devices do.
        SetupError: The wanted provider is not installed here, or has software adapters only.
    """
    fitting = list(devices)
    if target is not None:
        provider = _known(target)
        fitting = [device for device in fitting if device.provider == provider]
        if not fitting:
            raise SetupError(
                "device.provider",
                f"{provider.label} cannot be used here: ONNX Runtime lists no device for it.",
                "sdsetup doctor says what is missing.",
            )
    if number is not None:
        fitting = [device for device in fitting if device.number == number]
    if name is not None:
        words = name.casefold().split()
        fitting = [device for device in fitting if all(word in device.name.casefold() for word in words)]
        if len({device.name for device in fitting}) > 1:
            raise UsageError(
                "device.ambiguous",
                f"several devices are called {name!r}.",
                f"say which: {_listing(fitting)}.",
            )
    if not fitting:
        wish = f"number {number}" if name is None else f"name {name!r}"
        raise UsageError("device.unknown", f"no device has the {wish}.", f"there are: {_listing(devices)}.")
    asked = number is not None or name is not None
    for label in dict.fromkeys(device.provider.name for device in fitting):
        own = [device for device in fitting if device.provider.name == label]
        best = foremost(own) or (min(own, key=lambda device: device.standing.order) if asked else None)
        if best is not None:
            return best
    raise SetupError(
        "device.software",
        f"{fitting[0].provider.label} has software adapters only here, which are slower than the CPU.",
        f"sdsetup doctor says what is missing; --device-id takes one all the same: {_listing(fitting)}.",
    )


def _known(target: str) -> Provider:
    try:
        return provider_for(target)
    except ConversionError as error:
        raise UsageError(error.code, error.message, error.hint) from error


def _listing(devices: Sequence[Device]) -> str:
    return "; ".join(str(device) for device in devices)

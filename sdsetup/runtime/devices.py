"""Choose the device that runs the submodels, by provider, number or name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conversions.errors import ConversionError
from conversions.providers import devices as of_onnxruntime
from conversions.providers.adapter_ranking import best_adapter
from conversions.providers.devices import Device
from conversions.providers.table import Provider, provider_for
from sdsetup.error_hints import hint_for
from sdsetup.errors import SetupError, UsageError
from sdsetup.machine import adapters

__all__ = ["Device", "choose_device", "list_devices"]


def list_devices() -> tuple[Device, ...]:
    """Return the devices that ONNX Runtime can run on, the CPU last, named as the system names them.

    ONNX Runtime's WebGPU plug-in tells no product name and no memory on Linux; the system's readers do.
    """
    devices = of_onnxruntime.list_devices()
    if not any(any(device.unnamed_pci) for device in devices):
        return devices
    try:
        known = {(each.vendor_id, each.device_id): each for each in adapters.read()}
    except OSError:
        return devices
    return tuple(_named(device, known.get(device.unnamed_pci)) for device in devices)


def _named(device: Device, adapter: adapters.Adapter | None) -> Device:
    if adapter is None or not any(device.unnamed_pci) or not adapter.name:
        return device
    memory = adapter.vram_bytes if device.memory_bytes is None else device.memory_bytes
    discrete = device.discrete
    if discrete is None and adapter.integrated is not None:
        discrete = not adapter.integrated
    return replace(device, name=adapter.name, memory_bytes=memory, discrete=discrete)


def choose_device(
    devices: Sequence[Device],
    *,
    target: str | None = None,
    number: int | None = None,
    name: str | None = None,
) -> Device:
    """Choose the device to run on.

    Without a request: the first adapter by ``conversions.providers.adapter_ranking`` of the first provider in
    the table that has one. A software adapter is used only when its number or name is given.

    Args:
        devices: Available devices, from ``list_devices``.
        target: Only this provider: a target's name or ONNX Runtime's.
        number: Only this number within the provider.
        name: Only devices whose name contains all of these words, in any case.

    Raises:
        UsageError: Nothing fits the request, or several devices do.
        SetupError: The provider is not installed, or has software adapters only.
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
        described = f"number {number}" if name is None else f"name {name!r}"
        raise UsageError(
            "device.unknown", f"no device has the {described}.", f"there are: {_listing(devices)}."
        )
    asked = number is not None or name is not None
    for label in dict.fromkeys(device.provider.name for device in fitting):
        own = [device for device in fitting if device.provider.name == label]
        best = best_adapter(own) or (
            min(own, key=lambda device: device.adapter_rank.order) if asked else None
        )
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
        message = f"There is no provider '{target}'."
        raise UsageError(error.code, message, hint_for(error)) from error


def _listing(devices: Sequence[Device]) -> str:
    return "; ".join(str(device) for device in devices)

"""Which device runs the submodels: chosen once, by name or number, and never swapped silently."""

from __future__ import annotations

from collections.abc import Sequence

from conversions.devices import Device, list_devices
from conversions.errors import ConversionError
from conversions.providers import Provider, provider_for
from sdsetup.errors import SetupError, UsageError

__all__ = ["Device", "choose_device", "list_devices"]


def choose_device(
    devices: Sequence[Device],
    *,
    target: str | None = None,
    number: int | None = None,
    name: str | None = None,
) -> Device:
    """Pick the device to run on.

    Without wishes it is the fastest discrete GPU of the first provider in the table that this machine has.

    Args:
        devices: What there is, from ``list_devices``.
        target: Only this provider: a target's name or ONNX Runtime's.
        number: Only this number within the provider.
        name: Only a device whose name holds all of these words, in whatever case.

    Raises:
        UsageError: Nothing fits the wishes, or several devices do.
        SetupError: The wanted provider is not installed here.
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
    first = fitting[0].provider
    own = [device for device in fitting if device.provider == first]
    return min(own, key=lambda d: (d.discrete is False, d.rank if d.rank is not None else 99, d.number))


def _known(target: str) -> Provider:
    try:
        return provider_for(target)
    except ConversionError as error:
        raise UsageError(error.code, error.message, error.hint) from error


def _listing(devices: Sequence[Device]) -> str:
    return "; ".join(str(device) for device in devices)

"""Try a package whose images can be judged on the adapters that are not taken by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conversions.errors import ConversionError
from conversions.events import Listener
from conversions.package.layout import Package
from conversions.providers.devices import Device
from sdsetup.errors import SetupError
from sdsetup.imaging import smoke_test
from sdsetup.runtime import start
from sdsetup.runtime.devices import list_devices


@dataclass(frozen=True, kw_only=True)
class AdapterTrial:
    """What became of the smoke test on one adapter.

    Attributes:
        device: The adapter.
        seconds: Of the quickest image, loading included; 0.0 where none was made.
        problem: Why the adapter cannot be used; empty where all images are right.
    """

    device: Device
    seconds: float = 0.0
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.device}: {self.problem or f'{self.seconds:.1f} s an image'}"


def others(devices: Sequence[Device], used: Device) -> tuple[Device, ...]:
    """List the hardware adapters beside ``used`` that its provider can run on."""
    return tuple(
        device
        for device in devices
        if device.provider == used.provider and device.number != used.number and not device.software
    )


def try_others(package: Package, used: Device, *, steps: int, listener: Listener) -> tuple[AdapterTrial, ...]:
    """Run the smoke test on every adapter beside the one that was used.

    Images that cannot be judged are large and prove little: a package of such is not tried again.

    Args:
        package: The package.
        used: The device that was tried already.
        steps: Scheduler steps of each image.
        listener: Told of the progress.
    """
    if smoke_test.trials_for(package.manifest)[0].judge is None:
        return ()
    return tuple(
        try_on(package, device, steps=steps, listener=listener) for device in others(list_devices(), used)
    )


def try_on(package: Package, device: Device, *, steps: int, listener: Listener) -> AdapterTrial:
    """Run the smoke test on one device; what fails is part of the result."""
    request = start.DeviceRequest(provider=device.provider.name, device_id=device.number, low_vram=True)
    try:
        outcomes, _ = smoke_test.try_out(package, request, steps=steps, listener=listener)
        smoke_test.raise_for(outcomes)
    except (SetupError, ConversionError) as error:
        return AdapterTrial(device=device, problem=error.message)
    return AdapterTrial(device=device, seconds=min(outcome.seconds for outcome in outcomes))

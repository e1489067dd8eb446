"""Choose the requested device and start a runner on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conversions.events import Listener, Notice, ignore
from conversions.package.layout import Package
from conversions.verification.ep_assignment import describe_shares, share_of_time
from sdsetup.runtime.adapters import PackageAdapters
from sdsetup.runtime.devices import choose_device, list_devices
from sdsetup.runtime.runner import Runner, Usage, wants_low_memory
from sdsetup.runtime.worker import make_runner


@dataclass(frozen=True, kw_only=True)
class DeviceRequest:
    """The device that a user asks for.

    Attributes:
        provider: A target's name or ONNX Runtime's name of a provider; None chooses the best one available.
        device_id: The provider's index of the device.
        adapter: Words of the device's name.
        low_vram: Whether to close each submodel after its stage; None decides by the device's memory.
    """

    provider: str | None = None
    device_id: int | None = None
    adapter: str | None = None
    low_vram: bool | None = None


def start(
    package: Package,
    device_request: DeviceRequest,
    listener: Listener = ignore,
    adapters: PackageAdapters | None = None,
) -> Runner:
    """Choose the device, announce it, and return a runner of the package on it, with adapters merged.

    Raises:
        SetupError: The requested device is not available.
    """
    device = choose_device(
        list_devices(),
        target=device_request.provider,
        number=device_request.device_id,
        name=device_request.adapter,
    )
    low_memory = wants_low_memory(device) if device_request.low_vram is None else device_request.low_vram
    listener(Notice(text=f"running on {device}{', one submodel at a time' if low_memory else ''}."))
    nothing_requested = (
        device_request.provider is None
        and device_request.device_id is None
        and device_request.adapter is None
    )
    if nothing_requested and device.provider.target == "cpu" and package.target != "cpu":
        listener(Notice(text="no GPU that ONNX Runtime can use was found; sdsetup doctor says why."))
    return make_runner(package, device, low_memory=low_memory, listener=listener, adapters=adapters)


def summary(runner: Runner) -> str:
    """Name the device, its share of the nodes and of the time, and submodels that ran in float32."""
    usage = runner.usage()
    shares = describe_shares([used.placement for used in usage.values()], time_share(usage))
    text = f"{runner.device} ran {shares}"
    upcast = [name for name, used in usage.items() if used.upcast]
    return f"{text}, {' and '.join(upcast)} in float32 after float16 failed" if upcast else text


def time_share(usage: Mapping[str, Usage]) -> float | None:
    """Return the requested provider's share of the run time; None when unknown."""
    return share_of_time((used.placement, sum(used.run_seconds)) for used in usage.values())


def as_document(runner: Runner) -> dict[str, Any]:
    """Return devices, placement and times of the submodels as plain values for JSON."""
    device = runner.device
    return {
        "provider": device.provider.name,
        "device": device.name,
        "device_id": device.number,
        "device_memory_bytes": device.memory_bytes,
        "time_share": time_share(runner.usage()),
        "submodels": {
            name: {
                "nodes": dict(used.placement.nodes),
                "node_share": used.placement.node_share,
                "time_share": used.placement.time_share,
                "load_seconds": sum(used.load_seconds),
                "run_seconds": sum(used.run_seconds),
                "runs": len(used.run_seconds),
                "retried_in_fp32": used.upcast,
            }
            for name, used in runner.usage().items()
        },
    }

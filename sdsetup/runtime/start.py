"""From a person's device_request to a runner on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conversions.events import Listener, Notice, ignore
from conversions.package.layout import Package
from conversions.verification.ep_assignment import in_words, share_of_time
from sdsetup.runtime.devices import choose_device, list_devices
from sdsetup.runtime.runner import Runner, Usage, wants_low_memory
from sdsetup.runtime.worker import make_runner


@dataclass(frozen=True, kw_only=True)
class DeviceRequest:
    """What a person may say about where to run.

    Attributes:
        provider: A target's name or ONNX Runtime's name of a provider; None takes the best there is.
        device_id: The provider's number of a device.
        adapter: Words of a device's name.
        low_vram: Close each submodel after its stage; None decides by the device's memory.
    """

    provider: str | None = None
    device_id: int | None = None
    adapter: str | None = None
    low_vram: bool | None = None


def start(package: Package, device_request: DeviceRequest, listener: Listener = ignore) -> Runner:
    """Choose the device, say which it is, and return what runs the package on it.

    Raises:
        SetupError: The device_request cannot be met.
    """
    device = choose_device(
        list_devices(),
        target=device_request.provider,
        number=device_request.device_id,
        name=device_request.adapter,
    )
    low_memory = wants_low_memory(device) if device_request.low_vram is None else device_request.low_vram
    listener(Notice(text=f"running on {device}{', one submodel at a time' if low_memory else ''}."))
    unwished = (
        device_request.provider is None
        and device_request.device_id is None
        and device_request.adapter is None
    )
    if unwished and device.provider.target == "cpu" and package.target != "cpu":
        listener(Notice(text="no GPU that ONNX Runtime can use was found; sdsetup doctor says why."))
    return make_runner(package, device, low_memory=low_memory, listener=listener)


def summary(runner: Runner) -> str:
    """Say which device ran, what share of the nodes and of the time, and what had to run in float32."""
    usage = runner.usage()
    text = f"{runner.device} ran {in_words([used.placement for used in usage.values()], time_share(usage))}"
    upcast = [name for name, used in usage.items() if used.upcast]
    return f"{text}, {' and '.join(upcast)} in float32 after float16 failed" if upcast else text


def time_share(usage: Mapping[str, Usage]) -> float | None:
    """Return the share of all run time that the wanted provider took; None when it is not known."""
    return share_of_time((used.placement, sum(used.run_seconds)) for used in usage.values())


def as_document(runner: Runner) -> dict[str, Any]:
    """Return where the submodels ran as plain values for JSON."""
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

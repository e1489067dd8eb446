"""Choose the requested device and start a runner on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psutil

from conversions.events import Listener, Notice, ignore
from conversions.package.layout import Package
from conversions.recipe import ImageSize
from conversions.verification.ep_assignment import describe_shares, share_of_time
from sdsetup.disk_space import human_size
from sdsetup.runtime import memory_plan
from sdsetup.runtime.adapters import PackageAdapters
from sdsetup.runtime.device_budget import DeviceBudget, budget_of
from sdsetup.runtime.devices import Device, choose_device, list_devices
from sdsetup.runtime.memory_plan import MemoryPlan, Use
from sdsetup.runtime.runner import Runner, Usage
from sdsetup.runtime.runner_pair import RunnerPair
from sdsetup.runtime.worker import make_runner

# Smaller images fit where their model does, and its graphs need not be read to know it.
_LARGE_PIXELS = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class DeviceRequest:
    """The device that a user asks for.

    Attributes:
        provider: A target's name or ONNX Runtime's name of a provider; None chooses the best one available.
        device_id: The provider's index of the device.
        adapter: Words of the device's name.
        low_vram: Whether to close each submodel after its stage; None decides by the memory.
        vram_bytes: Memory of the device that may be used; None is all of it, or what is assumed of it.
        encoder_provider: Where the text encoders run; None decides by the memory.
        vae_tiling: Whether images are decoded, and encoded, in tiles; None decides by the memory.
    """

    provider: str | None = None
    device_id: int | None = None
    adapter: str | None = None
    low_vram: bool | None = None
    vram_bytes: int | None = None
    encoder_provider: str | None = None
    vae_tiling: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where packages run, and how they share its memory.

    Attributes:
        device: Where most submodels run.
        other: Where those of the plan's ``elsewhere`` run.
        plan: How the submodels of all packages share the device.
        may_tile: Whether a submodel may go over to tiles when memory runs out.
        listener: Told of submodels being opened.
    """

    device: Device
    other: Device
    plan: MemoryPlan
    may_tile: bool
    listener: Listener

    def runner(self, package: Package, adapters: PackageAdapters | None = None) -> Runner:
        """Return a runner of one of the packages, with adapters merged into its weights."""
        make = partial(
            make_runner,
            package,
            low_memory=self.plan.one_at_a_time,
            listener=self.listener,
            adapters=adapters,
            tiles=self.plan.tiles,
            may_tile=self.may_tile,
        )
        runner: Runner = make(self.device)
        available_bytes = psutil.virtual_memory().available
        if self.plan.side_by_side and memory_plan.opening_bytes(package) <= available_bytes:
            rest = frozenset(each.name for each in package.submodels) - set(package.with_role("denoiser"))
            runner = RunnerPair(main=runner, other=make(self.device), elsewhere=rest)
        if self.plan.elsewhere:
            runner = RunnerPair(main=runner, other=make(self.other), elsewhere=self.plan.elsewhere)
        return runner


def start(
    package: Package,
    device_request: DeviceRequest,
    size: ImageSize,
    listener: Listener = ignore,
    adapters: PackageAdapters | None = None,
    unused: Set[str] = frozenset(),
) -> Runner:
    """Prepare one package, as :func:`prepare` does several, and return its runner with adapters merged."""
    use = Use(package=package, unused=frozenset(unused))
    return prepare((use,), device_request, size, listener).runner(package, adapters)


def prepare(
    uses: Sequence[Use], device_request: DeviceRequest, size: ImageSize, listener: Listener = ignore
) -> Start:
    """Choose the device, plan its memory for packages that make the same images, and announce both.

    Args:
        uses: What will be run: a package, or one and its refiner.
        device_request: What the user asks for.
        size: Of the images to be made.
        listener: Told of the choice, and of submodels being opened.

    Raises:
        SetupError: A requested device is not available, or the images do not fit into ``vram_bytes``.
    """
    devices = list_devices()
    device = choose_device(
        devices,
        target=device_request.provider,
        number=device_request.device_id,
        name=device_request.adapter,
    )
    other = choose_device(devices, target=device_request.encoder_provider or "cpu")
    on_gpu = device.provider.target != "cpu"
    # An integrated GPU takes main memory from all other programs, so it holds as little as can be.
    integrated = device.discrete is False
    low_vram = device_request.low_vram
    main_bytes = int(psutil.virtual_memory().total)
    if device_request.vram_bytes is not None and on_gpu:
        budgeted = DeviceBudget(size_bytes=device_request.vram_bytes)
    else:
        budgeted = budget_of(device, main_bytes)
    budget = budgeted.size_bytes
    one_at_a_time = True if low_vram is None and integrated else low_vram
    plan_for = partial(
        memory_plan.make_plan,
        uses,
        size,
        budget,
        one_at_a_time=one_at_a_time,
        encoders_elsewhere=None if device_request.encoder_provider is None else other != device,
        tiled=device_request.vae_tiling,
    )
    # Winograd takes more memory, so it is left out where that is short.
    lean = replace(device.provider, winograd=None)
    short = bool(one_at_a_time)
    plan = plan_for(provider=lean if short else device.provider)
    if not short and device.provider != lean and _is_short(plan, budget, device_request):
        short, plan = True, plan_for(provider=lean)
    if short:
        device = replace(device, winograd=False)
    if budget is not None and device_request.vram_bytes is not None:
        memory_plan.demand(plan, budget)
    large_on_cpu = not on_gpu and size.width * size.height * size.images > _LARGE_PIXELS
    if large_on_cpu:
        plan = memory_plan.plan_on_cpu(
            plan,
            uses,
            size,
            main_bytes,
            provider=device.provider,
            tiled=device_request.vae_tiling,
        )
    listener(Notice(text=f"running on {device}{_described(plan, uses[0].package, other)}."))
    if budgeted.assumed:
        listener(Notice(text=f"{budgeted.assumed}; --vram GIB plans for another amount."))
    for reason in plan.whole_because:
        listener(Notice(text=reason))
    if budget is not None:
        _announce_shortage(plan.peak_bytes or 0, budget, str(device), listener)
    if large_on_cpu:
        _announce_shortage(plan.peak_bytes or 0, main_bytes, "this machine", listener)
    if device_request.vram_bytes is not None and not on_gpu:
        listener(Notice(text="--vram means a GPU's memory, and the images are made on the CPU."))
    nothing_requested = (
        device_request.provider is None
        and device_request.device_id is None
        and device_request.adapter is None
    )
    if nothing_requested and device.provider.target == "cpu" and uses[0].package.target != "cpu":
        listener(Notice(text="no GPU that ONNX Runtime can use was found; sdsetup doctor says why."))
    return Start(
        device=device,
        other=other,
        plan=plan,
        may_tile=device_request.vae_tiling is not False,
        listener=listener,
    )


def _is_short(plan: MemoryPlan, budget: int | None, device_request: DeviceRequest) -> bool:
    """Whether a plan makes do with too little memory, or does not keep to it."""
    tiled = bool(plan.tiles) and device_request.vae_tiling is None
    return plan.one_at_a_time or tiled or (budget is not None and (plan.peak_bytes or 0) > budget)


def _announce_shortage(needed_bytes: int, memory_bytes: int, where: str, listener: Listener) -> None:
    if needed_bytes > memory_bytes:
        needed = f"{human_size(needed_bytes)} of memory, and {where} has {human_size(memory_bytes)}"
        listener(Notice(text=f"the images need about {needed}: it may run out."))


def _described(plan: MemoryPlan, package: Package, other: Device) -> str:
    elsewhere = f", {' and '.join(sorted(plan.elsewhere))} on {other}" if plan.elsewhere else ""
    in_turn = ", one submodel at a time" if plan.one_at_a_time else ""
    if not plan.tiles:
        return f"{elsewhere}{in_turn}"
    words = {"encoder": "encoding", "decoder": "decoding"}
    doing = [words[each.role] for each in package.submodels if each.name in plan.tiles]
    side = min(plan.tiles.values())
    return f"{elsewhere}{in_turn}, {' and '.join(sorted(doing))} in tiles of {side}x{side}"


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

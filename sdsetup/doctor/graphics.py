"""Checks of the graphics adapters: what there is, which one is used, and which ways exist for it."""

from __future__ import annotations

from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.purpose import Kind
from sdsetup.doctor.registry import CheckContext, check
from sdsetup.doctor.shell import memory
from sdsetup.doctor.system import WINDOWS_ML_BUILD
from sdsetup.machine import adapters
from sdsetup.machine.adapters import Adapter, amd
from sdsetup.machine.facts import Machine

_IMAGES: frozenset[Kind] = frozenset({"anything", "generate"})


def _describe(adapter: Adapter) -> str:
    kind = {True: "integrated", False: "discrete", None: ""}[adapter.integrated]
    parts = (
        f"[{adapter.index}] {adapter.name or 'unnamed'}",
        "software" if adapter.software else kind,
        f"{memory(adapter.vram_bytes)} of its own" if adapter.vram_bytes is not None else "memory unknown",
        f"driver {adapter.driver} {adapter.driver_version}".strip() if _driver(adapter) else "",
        f"of {adapter.driver_date}" if adapter.driver_date else "",
    )
    return ", ".join(part for part in parts if part)


def _driver(adapter: Adapter) -> str:
    return f"{adapter.driver} {adapter.driver_version}".strip()


@check(
    "adapter.present",
    "Graphics adapters",
    why="Without one images are made by the processor: minutes instead of seconds.",
    reads="adapters machine",
    kinds=_IMAGES,
)
def present(context: CheckContext) -> Verdict:
    """List the adapters; a machine without hardware ones still works on its CPU."""
    seen = "; ".join(map(_describe, context.adapters)) or "none found"
    if adapters.choose(context.adapters) is not None:
        return ok(seen)
    if context.machine.platform == "win32":
        return warning(
            f"{seen}: no hardware adapter",
            Fix(
                says="Install the vendor's graphics driver; at a remote desktop, look at the machine itself",
                commands=("start ms-settings:windowsupdate-optionalupdates",),
            ),
        )
    return warning(
        f"{seen}: no hardware adapter, images will be made on the CPU",
        Fix(
            says="Nothing to repair; make small images with few steps",
            commands=(shell.sdsetup(context, "generate", "PACKAGE", "PROMPT", "--provider", "cpu"),),
        ),
    )


@check(
    "adapter.choice",
    "Adapter that sdsetup uses",
    why="Index 0 is whatever drives the first screen, which may be the slow integrated one.",
    reads="adapters machine",
    kinds=_IMAGES,
)
def choice(context: CheckContext) -> Verdict:
    """Say which adapter is used, why, and by which provider."""
    chosen = adapters.choose(context.adapters)
    if chosen is None:
        return skipped("there is no hardware adapter")
    adapter, reason = chosen
    if context.machine.platform == "win32":
        return ok(f"[{adapter.index}] {adapter.name}: {reason}; another by --device-id")
    return ok(f"{adapter.name} would be it ({reason}); {_elsewhere(adapter, context.machine)}")


def _elsewhere(adapter: Adapter, machine: Machine) -> str:
    if machine.platform == "darwin":
        return "on macOS sdsetup runs on the CPU"
    if adapter.vendor_id == adapters.NVIDIA:
        return "sdsetup uses it with the cuda flavour, installed by --flavour cuda"
    return "on Linux sdsetup runs on the CPU unless another ONNX Runtime flavour is installed"


@check(
    "adapter.vram",
    "Memory of the adapter",
    why="When it runs out the driver moves weights over the bus, tens of times slower, or fails.",
    reads="adapters machine plan",
    kinds=_IMAGES | {"convert"},
)
def vram(context: CheckContext) -> Verdict:
    """Compare the chosen adapter's memory with what the purpose needs."""
    chosen = adapters.choose(context.adapters)
    if chosen is None:
        return skipped("there is no hardware adapter")
    adapter, _ = chosen
    needed = context.purpose.vram_bytes
    own, usable = adapter.vram_bytes, adapter.usable_bytes
    if own is None or usable is None:
        return skipped(f"the system does not tell how much {adapter.name} has")
    seen = f"{adapter.name}: {memory(own)} of its own"
    if adapter.integrated:
        seen += f", {memory(adapter.shared_bytes or 0)} shared with the processor"
    if context.purpose.unknown or not needed:
        return skipped(f"{seen}; what images need is not known, see model.plan")
    wanted = f"{memory(needed)} are comfortable for {context.purpose.basis}"
    if usable >= 0.95 * needed:  # drivers keep a little for themselves
        return ok(f"{seen}; {wanted}")
    smaller = Fix(
        says="Use an fp16 package, smaller images and one at a time",
        commands=(
            shell.sdsetup(context, "generate", "PACKAGE", "PROMPT", "--width", "384", "--height", "384"),
        ),
    )
    least = context.purpose.vram_least_bytes
    if usable >= least:
        return warning(f"{seen}; {wanted}", smaller)
    wanted += f", and {memory(least)} are the least"
    # The conversion itself does without the adapter.
    report = warning if context.purpose.kind == "convert" else failure
    return report(f"{seen}; {wanted}", smaller)


@check(
    "adapter.driver",
    "Graphics driver",
    why="DirectML runs through it; Windows' stand-in driver has no Direct3D 12 for the GPU.",
    reads="adapters machine",
    kinds=_IMAGES,
)
def driver(context: CheckContext) -> Verdict:
    """See whether the vendor's own driver runs the chosen adapter."""
    chosen = adapters.choose(context.adapters)
    if chosen is None:
        return skipped("there is no hardware adapter")
    adapter, _ = chosen
    seen = _driver(adapter)
    if not seen:
        if context.machine.platform == "darwin":
            return ok("macOS brings it")
        pages = {"AMD": "amd.com/support", "NVIDIA": "nvidia.com/drivers", "Intel": "intel.com/drivers"}
        page = pages.get(adapter.vendor, "the vendor's page")
        return warning(f"{adapter.name}: no driver is loaded", Fix(says=f"Install the driver from {page}"))
    if adapter.driver in {"vfio-pci", "pci-stub"}:
        return warning(
            f"{adapter.name} is held by {adapter.driver} for a virtual machine",
            Fix(says="Give it back to the host to use it here"),
        )
    return ok(f"{adapter.name}: {seen}{f' of {adapter.driver_date}' if adapter.driver_date else ''}")


@check(
    "adapter.amd-routes",
    "Ways for this AMD adapter",
    why="AMD's cards have five ways to run ONNX models, and most exist for some cards on one system only.",
    reads="adapters machine",
    kinds=_IMAGES,
)
def amd_routes(context: CheckContext) -> Verdict:
    """Say which ways exist for each AMD adapter here, and which of them sdsetup takes."""
    cards = [
        adapter for adapter in context.adapters if adapter.vendor_id == adapters.AMD and not adapter.software
    ]
    if not cards:
        return skipped("there is no AMD adapter")
    return ok(" ".join(_routes(card, context.machine) for card in cards))


def _routes(card: Adapter, machine: Machine) -> str:
    known = amd.architecture(card.device_id)
    title = f"{card.name}: " + (
        f"{known.name}, {known.gfx}." if known else f"unknown id {card.device_id:#06x}."
    )
    if machine.platform == "win32":
        new = known is not None and known.vendor_provider
        windows_ml = (
            "Windows ML: AMD's own provider exists, not used by sdsetup yet."
            if new and machine.build >= WINDOWS_ML_BUILD
            else "Windows ML: needs Windows 11 24H2; AMD's own provider exists for this card."
            if new
            else "Windows ML: routes this card to DirectML."
        )
        ways: tuple[str, ...] = (
            "DirectML: yes, this is what sdsetup uses.",
            windows_ml,
            "ROCm and MIGraphX: no ONNX Runtime for them on Windows.",
            "WebGPU plug-in: a beta, over Direct3D 12; sdsetup runs on it with --provider webgpu.",
        )
    elif machine.platform == "linux":
        rocm = "supported by AMD" if known and known.rocm else "not on AMD's list, may work"
        installed = f", {machine.rocm} is installed" if machine.rocm else ", not installed"
        ways = (
            "DirectML and Windows ML: on Windows only.",
            f"ROCm: {rocm}{installed}.",
            "MIGraphX: through ROCm, by --flavour migraphx, not tested by sdsetup.",
            "WebGPU plug-in: a beta, over Vulkan; sdsetup runs on it with --provider webgpu.",
            "Otherwise sdsetup runs on the CPU here.",
        )
    else:
        ways = ("ONNX Runtime has no way to it on this system; sdsetup runs on the CPU.",)
    return " ".join((title, *ways))

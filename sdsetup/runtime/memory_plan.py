"""Plan which submodels are loaded together, and which elsewhere, within a device's memory."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from conversions.errors import ConversionError
from conversions.forecast import CONTEXT_BYTES, SESSION_BYTES, Forecast, forecast, weights_bytes
from conversions.package.layout import Package
from conversions.pipeline_graphs import PipelineGraphs, package_graphs
from conversions.providers.table import Provider
from conversions.recipe import ImageSize
from conversions.tiling.cut import cut
from sdsetup.disk_space import human_size
from sdsetup.errors import SetupError
from sdsetup.runtime.autoencoder_tiles import ASKED_SIDE, SIDES, tileable

# More than all activations take for each pixel: SDXL's float32 decoder takes 3.8 GiB at 1024x1024.
_MOST_BYTES_A_PIXEL = 8192


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How a package's submodels share a device.

    Attributes:
        one_at_a_time: Close each submodel when its stage is over.
        elsewhere: Submodels that run on another device: the CPU, or where it was asked for.
        side_by_side: Run the denoiser in a process of its own, where the provider has its sessions in another
            process, so that it opens while the others run; the device then holds one more context.
        peak_bytes: What the device will hold at most; None where it was not reckoned.
        tiles: Submodels that run in tiles, of the autoencoder, and the side of a tile in pixels of the image.
        whole_because: What does not run in tiles although it was to, and why; empty where there is none.
    """

    one_at_a_time: bool = False
    side_by_side: bool = False
    elsewhere: frozenset[str] = frozenset()
    peak_bytes: int | None = None
    tiles: Mapping[str, int] = field(default_factory=dict)
    whole_because: tuple[str, ...] = ()


def make_plan(
    package: Package,
    size: ImageSize,
    budget_bytes: int | None,
    *,
    provider: Provider,
    one_at_a_time: bool | None = None,
    encoders_elsewhere: bool | None = None,
    tiled: bool | None = None,
    unused: Set[str] = frozenset(),
) -> MemoryPlan:
    """Plan for images of a size.

    Args:
        package: What makes the images.
        size: Of the images.
        budget_bytes: Memory of the device that may be used; None when it is not known.
        provider: The device's.
        one_at_a_time: Whether each submodel is closed after its stage; None decides by the memory.
        encoders_elsewhere: Whether the text encoders run on another device; None moves those that are
            too large for this one by themselves, as they run only once an image.
        tiled: Whether the autoencoder runs in tiles; None decides by the memory.
        unused: Submodels that will not run.
    """
    encoders = frozenset(package.with_role("text"))
    elsewhere = encoders if encoders_elsewhere else frozenset()
    side_by_side = provider.own_process and not one_at_a_time
    contexts_bytes = (2 if side_by_side else 1) * CONTEXT_BYTES
    ample = MemoryPlan(one_at_a_time=bool(one_at_a_time), side_by_side=side_by_side, elsewhere=elsewhere)
    if tiled:
        graphs = package_graphs(package).without(unused)
        ample = _in_tiles(ample, graphs, tileable(package), ASKED_SIDE)
    if budget_bytes is None:
        return ample
    pixels = size.width * size.height * size.images
    images_bytes = int(provider.activation_factor * _MOST_BYTES_A_PIXEL * pixels)
    # Files may hold more than is used, never less: with room for all of them no graph need be read.
    fixed_bytes = contexts_bytes + len(package.submodels) * SESSION_BYTES
    files_bytes = sum(_files_bytes(package, each.name) for each in package.submodels)
    if files_bytes + fixed_bytes + images_bytes <= budget_bytes:
        return ample
    graphs = package_graphs(package).run_by(provider)
    sizes = {name: weights_bytes(model) for name, model in graphs.models.items()}
    if encoders_elsewhere is None:
        alone = CONTEXT_BYTES + SESSION_BYTES
        elsewhere = frozenset(name for name in encoders if sizes[name] + alone > budget_bytes)
    held = sum(weights + SESSION_BYTES for name, weights in sizes.items() if name not in elsewhere)
    if contexts_bytes + held + images_bytes <= budget_bytes:
        return replace(ample, elsewhere=elsewhere)
    graphs = graphs.without(unused | elsewhere)
    needed = forecast(graphs, size)
    if one_at_a_time is None:
        one_at_a_time = needed.device_bytes > budget_bytes
    plan = replace(ample, one_at_a_time=one_at_a_time, side_by_side=False, elsewhere=elsewhere)
    if tiled is not False:
        plan, needed = _in_fitting_tiles(plan, package, graphs, size, budget_bytes, needed)
    if one_at_a_time:
        return replace(plan, peak_bytes=needed.staged_bytes)
    peak_bytes = needed.device_bytes + CONTEXT_BYTES
    if side_by_side and peak_bytes <= budget_bytes:
        return replace(plan, side_by_side=True, peak_bytes=peak_bytes)
    return replace(plan, peak_bytes=needed.device_bytes)


def _in_fitting_tiles(
    plan: MemoryPlan,
    package: Package,
    graphs: PipelineGraphs,
    size: ImageSize,
    budget_bytes: int,
    needed: Forecast,
) -> tuple[MemoryPlan, Forecast]:
    """Let what does not fit run in the largest tiles that do, and forecast with them.

    Where none fit, the largest of those that need least: the low resolutions run whole at any size of tiles.
    """
    most = min(plan.tiles.values(), default=SIDES[0])
    if plan.tiles:
        needed = forecast(graphs.in_tiles(plan.tiles), size)
    for side in (each for each in SIDES if each <= most):
        too_large = _too_large(package, needed, budget_bytes, plan.one_at_a_time)
        if not too_large:
            break
        smaller = _in_tiles(plan, graphs, too_large | set(plan.tiles), side)
        if not smaller.tiles:
            return smaller, needed
        forecast_smaller = forecast(graphs.in_tiles(smaller.tiles), size)
        if _summed_bytes(forecast_smaller) < _summed_bytes(needed):
            plan, needed = smaller, forecast_smaller
    return plan, needed


def _summed_bytes(needed: Forecast) -> int:
    return sum(need.total_bytes for need in needed.needs)


def _too_large(package: Package, needed: Forecast, budget_bytes: int, one_at_a_time: bool) -> frozenset[str]:
    """Return what could run in tiles and does not fit, beside what is loaded together with it."""
    names = tileable(package)
    if not one_at_a_time:
        return names if needed.device_bytes > budget_bytes else frozenset()
    room = budget_bytes - CONTEXT_BYTES
    return frozenset(
        need.submodel for need in needed.needs if need.submodel in names and need.total_bytes > room
    )


def _in_tiles(plan: MemoryPlan, graphs: PipelineGraphs, submodels: Set[str], side: int) -> MemoryPlan:
    """Let submodels run in tiles, or say why one cannot."""
    tiles, whole = {}, []
    for name in sorted(submodels & set(graphs.models)):
        try:
            cut(graphs.models[name])
        except ConversionError as error:
            whole.append(f"{name} runs in one piece: {error.message}")
        else:
            tiles[name] = side
    return replace(plan, tiles=tiles, whole_because=tuple(whole))


def plan_on_cpu(
    plan: MemoryPlan,
    package: Package,
    size: ImageSize,
    memory_bytes: int,
    *,
    provider: Provider,
    tiled: bool | None = None,
    unused: Set[str] = frozenset(),
) -> MemoryPlan:
    """Reckon the main memory that a plan takes on the CPU; decode in tiles where it is too much.

    Args:
        plan: As :func:`make_plan` gives it.
        package: What makes the images.
        size: Of the images.
        memory_bytes: Main memory of the machine.
        provider: The CPU's.
        tiled: Whether the autoencoder runs in tiles; None decides by the memory.
        unused: Submodels that will not run.
    """
    graphs = package_graphs(package).run_by(provider).without(unused)

    def reckoned(plan: MemoryPlan) -> MemoryPlan:
        needed = forecast(graphs.in_tiles(plan.tiles), size)
        peak_bytes = needed.staged_cpu_bytes if plan.one_at_a_time else needed.cpu_bytes
        return replace(plan, peak_bytes=peak_bytes)

    whole = reckoned(plan)
    if tiled is not None or (whole.peak_bytes or 0) <= memory_bytes:
        return whole
    smaller = reckoned(_in_tiles(plan, graphs, tileable(package), ASKED_SIDE))
    return whole if (smaller.peak_bytes or 0) > (whole.peak_bytes or 0) else smaller


def demand(plan: MemoryPlan, budget_bytes: int) -> None:
    """Stop where a plan does not keep to a budget.

    Raises:
        SetupError: ``device.budget``.
    """
    if plan.peak_bytes is not None and plan.peak_bytes > budget_bytes:
        raise SetupError(
            "device.budget",
            f"the images need about {human_size(plan.peak_bytes)} of the device's memory, "
            f"and {human_size(budget_bytes)} may be used.",
            "use a smaller --width and --height, fewer --images, or convert again with --precision int4.",
        )


def opening_bytes(package: Package) -> int:
    """Reckon the main memory that it takes to open the denoiser beside another submodel, in bytes.

    The weights of both exist twice at that moment: as read from disk and in the session.
    """
    denoisers = package.with_role("denoiser")
    largest = max(
        _files_bytes(package, each.name) for each in package.submodels if each.name not in denoisers
    )
    return 2 * (sum(_files_bytes(package, name) for name in denoisers) + largest)


def _files_bytes(package: Package, submodel: str) -> int:
    return sum(path.stat().st_size for path in package.graph(submodel).parent.glob("*"))

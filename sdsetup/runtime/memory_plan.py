"""Plan which submodels are loaded together, and which elsewhere, within a device's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property

from conversions.errors import ConversionError
from conversions.forecast import CONTEXT_BYTES, SESSION_BYTES, Forecast, forecast, weights_bytes
from conversions.package.layout import Package
from conversions.pipeline_graphs import PipelineGraphs, package_graphs
from conversions.providers.table import Provider
from conversions.recipe import ImageSize
from conversions.tiling.cut import Cut, cut
from sdsetup.disk_space import human_size
from sdsetup.errors import SetupError
from sdsetup.runtime.autoencoder_tiles import ASKED_SIDE, SIDES, tileable

# More than all activations take for each pixel: SDXL's float32 decoder takes 3.8 GiB at 1024x1024.
_MOST_BYTES_A_PIXEL = 8192
# Where memory is given back some launches later: SD 1.4's decoder holds 4.5 times what is live.
_MOST_HELD = 5


@dataclass(frozen=True, kw_only=True)
class Use:
    """A package that makes images, or a part of their steps.

    Attributes:
        package: The package.
        unused: Submodels of it that will not run.
    """

    package: Package
    unused: frozenset[str] = frozenset()

    @property
    def most_bytes(self) -> int:
        """More memory than the sessions of what runs take without activations; no graph is read for it."""
        names = [each.name for each in self.package.submodels if each.name not in self.unused]
        return sum(_files_bytes(self.package, name) + SESSION_BYTES for name in names)

    @cached_property
    def graphs(self) -> PipelineGraphs:
        """The graphs of what runs, read once for all plans."""
        return package_graphs(self.package).without(self.unused)

    @cached_property
    def cuts(self) -> Mapping[str, Cut | ConversionError]:
        """What could run in tiles, cut, or why it cannot be."""
        found: dict[str, Cut | ConversionError] = {}
        for name in sorted(tileable(self.package) & set(self.graphs.models)):
            try:
                found[name] = cut(self.graphs.models[name])
            except ConversionError as error:
                found[name] = error
        return found


@dataclass(frozen=True, kw_only=True)
class _Graphs:
    """The graphs of what runs, for a provider, and the first package's autoencoder in pieces."""

    uses: Sequence[Use]
    provider: Provider

    @property
    def all(self) -> tuple[PipelineGraphs, ...]:
        return tuple(use.graphs.run_by(self.provider) for use in self.uses)

    @property
    def cuts(self) -> Mapping[str, Cut | ConversionError]:
        return self.uses[0].cuts

    def in_tiles(self, plan: MemoryPlan, submodels: Set[str], side: int) -> MemoryPlan:
        """Let submodels run in tiles, or say why one cannot."""
        tiles, whole = {}, []
        for name, found in self.cuts.items():
            if name in submodels and isinstance(found, Cut):
                tiles[name] = side
            elif name in submodels and isinstance(found, ConversionError):
                whole.append(f"{name} runs in one piece: {found.message}")
        return replace(plan, tiles=tiles, whole_because=tuple(whole))

    def needed(self, size: ImageSize, elsewhere: Set[str], tiles: Mapping[str, int]) -> Forecast:
        """Forecast for all packages together."""
        first, *others = (each.without(elsewhere) for each in self.all)
        needed = forecast(self._tiled(first, tiles), size)
        for each in others:
            needed = needed.joined(forecast(each, size))
        return needed

    def with_tiles(self, needed: Forecast, size: ImageSize, tiles: Mapping[str, int]) -> Forecast:
        """Return a forecast with other tiles; what has none stays as it was reckoned."""
        return needed.updated(forecast(self._tiled(self.all[0].only(tiles), tiles), size))

    def _tiled(self, graphs: PipelineGraphs, tiles: Mapping[str, int]) -> PipelineGraphs:
        cuts = {name: found for name in tiles if isinstance(found := self.cuts[name], Cut)}
        return graphs.in_tiles(tiles, cuts)


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How the submodels of packages that make the same images share a device.

    Attributes:
        one_at_a_time: Close each submodel when its stage is over.
        elsewhere: Submodels that run on another device: the CPU, or where it was asked for.
        side_by_side: Run the denoiser in a process of its own, where the provider has its sessions in another
            process, so that it opens while the others run; the device then holds one more context.
        peak_bytes: What the device will hold at most; None where it was not reckoned.
        tiles: Submodels of the first package's autoencoder that run in tiles, and the side of a tile in
            pixels of the image.
        whole_because: What does not run in tiles although it was to, and why; empty where there is none.
        alternatives: What each way to share the device would take, in words, where that was reckoned.
    """

    one_at_a_time: bool = False
    side_by_side: bool = False
    elsewhere: frozenset[str] = frozenset()
    peak_bytes: int | None = None
    tiles: Mapping[str, int] = field(default_factory=dict)
    whole_because: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = field(default=(), compare=False)


def make_plan(
    uses: Sequence[Use],
    size: ImageSize,
    budget_bytes: int | None,
    *,
    provider: Provider,
    one_at_a_time: bool | None = None,
    encoders_elsewhere: bool | None = None,
    tiled: bool | None = None,
) -> MemoryPlan:
    """Plan for images of a size.

    Args:
        uses: The packages that make the images together: one, or one and its refiner. The first encodes and
            decodes.
        size: Of the images.
        budget_bytes: Memory of the device that may be used; None when it is not known.
        provider: The device's.
        one_at_a_time: Whether each submodel is closed after its stage; None decides by the memory.
        encoders_elsewhere: Whether the text encoders run on another device; None moves those that are
            too large for this one by themselves, as they run only once an image.
        tiled: Whether the autoencoder runs in tiles; None decides by the memory.
    """
    encoders = frozenset(name for use in uses for name in use.package.with_role("text"))
    elsewhere = encoders if encoders_elsewhere else frozenset()
    side_by_side = provider.own_process and not one_at_a_time
    ample = MemoryPlan(one_at_a_time=bool(one_at_a_time), side_by_side=side_by_side, elsewhere=elsewhere)
    graphs = _Graphs(uses=uses, provider=provider)
    if tiled:
        ample = graphs.in_tiles(ample, tileable(uses[0].package), ASKED_SIDE)
    if budget_bytes is None:
        return ample
    # Each package has a process of its own, where the provider wants one, and its denoiser another.
    more_bytes = CONTEXT_BYTES * (len(uses) - 1) if provider.own_process else 0
    beside_bytes = CONTEXT_BYTES * len(uses) if side_by_side else 0
    budget_bytes -= more_bytes
    pixels = size.width * size.height * size.images
    most_bytes_a_pixel = provider.activation_factor * _MOST_BYTES_A_PIXEL
    if provider.held_launches:
        most_bytes_a_pixel *= _MOST_HELD
    images_bytes = int(most_bytes_a_pixel * pixels) * len(uses)
    fixed_bytes = CONTEXT_BYTES + beside_bytes + images_bytes
    # Files may hold more than is used; less only by Winograd's weights, far below what the activations of
    # any model leave of their bound. With room for all of them no graph need be read.
    if fixed_bytes + sum(use.most_bytes for use in uses) <= budget_bytes:
        return ample
    sizes = [(name, weights_bytes(model)) for each in graphs.all for name, model in each.models.items()]
    if encoders_elsewhere is None:
        alone = CONTEXT_BYTES + SESSION_BYTES
        elsewhere = frozenset(
            name for name, weights in sizes if name in encoders and weights + alone > budget_bytes
        )
    held = sum(weights + SESSION_BYTES for name, weights in sizes if name not in elsewhere)
    if fixed_bytes + held <= budget_bytes:
        return replace(ample, elsewhere=elsewhere)
    needed = graphs.needed(size, elsewhere, ample.tiles)
    ways = [] if one_at_a_time else [_way("all submodels together", needed.device_bytes + more_bytes)]
    if one_at_a_time is None:
        one_at_a_time = needed.device_bytes > budget_bytes
    if one_at_a_time:
        ways.append(_way("one at a time", needed.staged_bytes + more_bytes, needed))
    plan = replace(ample, one_at_a_time=one_at_a_time, side_by_side=False, elsewhere=elsewhere)
    if tiled is not False:
        plan, needed = _in_fitting_tiles(plan, graphs, size, budget_bytes, needed)
    peak_bytes = needed.staged_bytes if one_at_a_time else needed.device_bytes
    if plan.tiles:
        side = min(plan.tiles.values())
        ways.append(_way(f"in tiles of {side}x{side}", peak_bytes + more_bytes, needed))
    plan = replace(plan, peak_bytes=peak_bytes + more_bytes, alternatives=tuple(ways))
    if side_by_side and not one_at_a_time and peak_bytes + beside_bytes <= budget_bytes:
        return replace(plan, side_by_side=True, peak_bytes=peak_bytes + more_bytes + beside_bytes)
    return plan


def _way(name: str, size_bytes: int, needed: Forecast | None = None) -> str:
    """Say what a way takes, and which submodel the most, where they are loaded one at a time."""
    if needed is None or not needed.needs:
        return f"{name} {human_size(size_bytes)}"
    largest = max(needed.needs, key=lambda need: need.total_bytes)
    return f"{name} {human_size(size_bytes)} ({largest.submodel})"


def _in_fitting_tiles(
    plan: MemoryPlan, graphs: _Graphs, size: ImageSize, budget_bytes: int, needed: Forecast
) -> tuple[MemoryPlan, Forecast]:
    """Let what does not fit run in the largest tiles that do, and forecast with them.

    Where none fit, the largest of those that need least: the low resolutions run whole at any size of tiles.
    """
    most = min(plan.tiles.values(), default=SIDES[0])
    wanted = frozenset(plan.tiles)
    for side in (each for each in SIDES if each <= most):
        too_large = _too_large(graphs.uses[0].package, needed, budget_bytes, plan.one_at_a_time)
        if not too_large:
            break
        wanted |= too_large
        smaller = graphs.in_tiles(plan, wanted, side)
        if not smaller.tiles:
            return smaller, needed
        with_smaller = graphs.with_tiles(needed, size, smaller.tiles)
        if _summed_bytes(with_smaller) < _summed_bytes(needed):
            plan, needed = smaller, with_smaller
        plan = replace(plan, whole_because=smaller.whole_because)
    return plan, needed


def _summed_bytes(needed: Forecast) -> int:
    return sum(need.total_bytes for need in needed.needs)


def _too_large(package: Package, needed: Forecast, budget_bytes: int, one_at_a_time: bool) -> frozenset[str]:
    """Return what could run in tiles and does not fit, beside what is loaded together with it."""
    names = tileable(package) & {need.submodel for need in needed.needs}
    if not one_at_a_time:
        return names if needed.device_bytes > budget_bytes else frozenset()
    room = budget_bytes - CONTEXT_BYTES
    return frozenset(
        need.submodel for need in needed.needs if need.submodel in names and need.total_bytes > room
    )


def plan_on_cpu(
    plan: MemoryPlan,
    uses: Sequence[Use],
    size: ImageSize,
    memory_bytes: int,
    *,
    provider: Provider,
    tiled: bool | None = None,
) -> MemoryPlan:
    """Reckon the main memory that a plan takes on the CPU; decode in tiles where it is too much.

    Args:
        plan: As :func:`make_plan` gives it.
        uses: The packages that make the images together.
        size: Of the images.
        memory_bytes: Main memory of the machine.
        provider: The CPU's.
        tiled: Whether the autoencoder runs in tiles; None decides by the memory.
    """
    graphs = _Graphs(uses=uses, provider=provider)
    needed = graphs.needed(size, frozenset(), plan.tiles)
    whole = replace(plan, peak_bytes=_on_cpu_bytes(plan, needed))
    if tiled is not None or (whole.peak_bytes or 0) <= memory_bytes:
        return whole
    smaller = graphs.in_tiles(plan, tileable(uses[0].package), ASKED_SIDE)
    if not smaller.tiles:
        return replace(whole, whole_because=smaller.whole_because)
    peak_bytes = _on_cpu_bytes(smaller, graphs.with_tiles(needed, size, smaller.tiles))
    return whole if peak_bytes > (whole.peak_bytes or 0) else replace(smaller, peak_bytes=peak_bytes)


def _on_cpu_bytes(plan: MemoryPlan, needed: Forecast) -> int:
    return needed.staged_cpu_bytes if plan.one_at_a_time else needed.cpu_bytes


def demand(plan: MemoryPlan, budget_bytes: int) -> None:
    """Stop where a plan does not keep to a budget, and say what each way would take.

    Raises:
        SetupError: ``device.budget``.
    """
    if plan.peak_bytes is not None and plan.peak_bytes > budget_bytes:
        reasons = " ".join((f"They take: {', '.join(plan.alternatives)}.", *plan.whole_because))
        raise SetupError(
            "device.budget",
            f"the images need about {human_size(plan.peak_bytes)} of the device's memory, "
            f"and {human_size(budget_bytes)} may be used. {reasons}",
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

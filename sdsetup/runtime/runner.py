"""Run submodels one after the other, keeping as many loaded as fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Protocol

from conversions.events import Finished, Listener, Started, ignore, underway
from conversions.package.layout import Package
from conversions.providers.session_graph import Edit
from conversions.providers.table import FIXED_SIZES
from conversions.verification.ep_assignment import Placement
from sdsetup.runtime import sessions
from sdsetup.runtime.adapters import PackageAdapters
from sdsetup.runtime.autoencoder_tiles import with_smaller
from sdsetup.runtime.devices import Device
from sdsetup.runtime.sessions import Array, Arrays, Dimensions, Loaded, OutOfMemoryError, ReplayError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Statistics of one submodel.

    Attributes:
        placement: Where its nodes ran.
        load_seconds: Time of each load.
        run_seconds: Time of each run, in order.
        upcast: Whether it runs in float32 although it was converted to float16.
    """

    placement: Placement
    load_seconds: tuple[float, ...]
    run_seconds: tuple[float, ...] = ()
    upcast: bool = False


class Runner(Protocol):
    """Interface for running a package's submodels."""

    @property
    def device(self) -> Device:
        """Where the submodels run."""
        ...

    def run(self, submodel: str, inputs: Arrays) -> dict[str, Array]:
        """Run a submodel once, opening it first where needed."""
        ...

    def begin(self) -> None:
        """Start the processes that submodels run in, where they do not run in this one."""
        ...

    def opens_ahead(self, submodel: str) -> bool:
        """Whether it saves time to open a submodel before its first run."""
        ...

    def open_ahead(self, submodel: str, sizes: Mapping[str, int]) -> None:
        """Begin to open a submodel; what fails is tried again in its first run.

        Args:
            submodel: Its name.
            sizes: Of the dimensions of its inputs, by name, in its first run.
        """
        ...

    def upcast_to_fp32(self, submodel: str) -> None:
        """Run a float16 submodel in float32 from its next run on."""
        ...

    def skip_layers(self, submodel: str, count: int) -> None:
        """Leave out the last layers of a submodel from its next run on."""
        ...

    def shrink_tiles(self, submodel: str) -> int | None:
        """Run a submodel that ran out of memory in tiles, or in smaller ones, from its next run on.

        Returns:
            Side of the tiles, in pixels of the image; None where it stays as it is.

        Raises:
            ConversionError: It cannot be cut.
        """
        ...

    def done_with(self, submodel: str) -> None:
        """Mark a submodel as not needed for now."""
        ...

    def usage(self) -> Mapping[str, Usage]:
        """Return the statistics of each submodel."""
        ...

    def close(self) -> None:
        """Release all memory."""
        ...


@dataclass(kw_only=True)
class LocalRunner:
    """Runs submodels in this process.

    Attributes:
        package: The package.
        device: Where they run.
        low_memory: Close each submodel as soon as the next stage begins.
        listener: Hears of submodels being opened.
        upcast: Float16 submodels that run in float32.
        skipped: Layers to leave out at a submodel's end, by name.
        adapters: Merged into the weights when a submodel is opened.
        tiles: Submodels that run in tiles, and the side of a tile in pixels of the image.
        may_tile: Whether others may go over to tiles when memory runs out.
    """

    package: Package
    device: Device
    low_memory: bool = False
    listener: Listener = ignore
    adapters: PackageAdapters = field(default_factory=PackageAdapters)
    upcast: frozenset[str] = frozenset()
    skipped: Mapping[str, int] = field(default_factory=dict)
    tiles: Mapping[str, int] = field(default_factory=dict)
    may_tile: bool = True
    _dimensions: dict[str, Dimensions] = field(default_factory=dict, init=False)
    _open: dict[str, Loaded] = field(default_factory=dict, init=False)
    _not_replayed: set[str] = field(default_factory=set, init=False)
    _usage: dict[str, Usage] = field(default_factory=dict, init=False)

    def run(self, submodel: str, inputs: Arrays) -> dict[str, Array]:
        """Run a submodel once, opening it first where needed.

        If memory runs out, unused submodels are closed and the run is retried once.
        """
        try:
            return self._run(submodel, inputs)
        except OutOfMemoryError:
            if not set(self._open) - {submodel}:
                raise
        self.low_memory = True
        self.close()
        return self._run(submodel, inputs)

    def begin(self) -> None:
        """Do nothing: submodels run in this process."""

    def opens_ahead(self, submodel: str) -> bool:  # noqa: ARG002 - the protocol's
        """No: opening a submodel in this process keeps the caller waiting."""
        return False

    def open_ahead(self, submodel: str, sizes: Mapping[str, int]) -> None:
        """Open a submodel, unless submodels are to be closed as soon as they can be."""
        if not self.low_memory and submodel not in self._open and submodel not in self.tiles:
            self._open[submodel] = self._load(submodel, sizes)

    def upcast_to_fp32(self, submodel: str) -> None:
        """Run a float16 submodel in float32 from its next run on, on the same stored weights."""
        self.upcast |= {submodel}
        self._open.pop(submodel, None)

    def skip_layers(self, submodel: str, count: int) -> None:
        """Leave out the last layers of a submodel from its next run on."""
        if self.skipped.get(submodel, 0) != count:
            self.skipped = {**self.skipped, submodel: count}
            self._open.pop(submodel, None)

    def shrink_tiles(self, submodel: str) -> int | None:
        """Run a submodel in tiles, or in smaller ones, from its next run on, as :class:`Runner` says."""
        tiles = with_smaller(self.tiles, submodel, self.package) if self.may_tile else None
        if tiles is None:
            return None
        self.tiles = tiles
        self.device = replace(self.device, winograd=False)
        self._open.pop(submodel, None)
        return tiles[submodel]

    def done_with(self, submodel: str) -> None:
        """Close a submodel if memory is short."""
        if self.low_memory:
            self._open.pop(submodel, None)

    def usage(self) -> Mapping[str, Usage]:
        """Return the statistics of each submodel."""
        return dict(self._usage)

    def close(self) -> None:
        """Close all submodels."""
        self._open.clear()

    def _run(self, submodel: str, inputs: Arrays) -> dict[str, Array]:
        if submodel in self.tiles:
            return self._run_in_tiles(submodel, inputs)
        outputs = self._attempt(submodel, inputs)
        if outputs is None:
            # Not in the handler, whose traceback would keep the first session and its memory.
            outputs = self._attempt(submodel, inputs)
        assert outputs is not None
        return outputs

    def _attempt(self, submodel: str, inputs: Arrays) -> dict[str, Array] | None:
        """Run a submodel; None where launches cannot be recorded, which the next attempt does without."""
        sizes = self._sizes(submodel, inputs)
        loaded = self._open.get(submodel)
        if loaded is not None and loaded.sizes != sizes:
            del self._open[submodel]
            loaded = None
        try:
            if loaded is None:
                loaded = self._load(submodel, sizes)
            started = perf_counter()
            outputs, loaded = sessions.run(loaded, inputs, f"running {submodel}")
            seconds = perf_counter() - started
        except ReplayError as error:
            logger.info("%s runs without replaying its launches: %s", submodel, error)
            self._not_replayed.add(submodel)
            self._open.pop(submodel, None)
            return None
        self._open[submodel] = loaded
        before = self._usage[submodel]
        self._usage[submodel] = Usage(
            placement=loaded.placement,
            load_seconds=before.load_seconds,
            run_seconds=(*before.run_seconds, seconds),
            upcast=before.upcast,
        )
        return outputs

    def _run_in_tiles(self, submodel: str, inputs: Arrays) -> dict[str, Array]:
        import onnx_ir as ir

        from conversions.tiling.cut import cut
        from sdsetup.runtime.tiled_run import run_in_tiles

        graph, upcast = self.package.graph(submodel), submodel in self.upcast
        weights = self.adapters.weights(self.package, submodel)

        def open_part(part: ir.Model, feeds: Arrays) -> Loaded:
            sizes = sessions.sizes_of(sessions.free_dimensions(part), feeds)
            return sessions.load(
                graph,
                self.device,
                sizes if self.device.provider.sizes == FIXED_SIZES else {},
                upcast=upcast,
                exact=self.package.is_fp32,
                weights={name: weights[name] for name in weights if name in part.graph.initializers},
                part=part,
                replayed=False,
            )

        done = run_in_tiles(
            cut(ir.load(graph)),
            inputs,
            self.tiles[submodel],
            open_part=open_part,
            what=submodel,
            listener=self.listener,
        )
        before = self._usage.get(submodel)
        self._usage[submodel] = Usage(
            placement=done.placement,
            load_seconds=(*(before.load_seconds if before else ()), done.load_seconds),
            run_seconds=(*(before.run_seconds if before else ()), done.run_seconds),
            upcast=upcast,
        )
        return done.outputs

    def _sizes(self, submodel: str, inputs: Arrays) -> dict[str, int]:
        """Return the sizes that a session must have for these inputs; the graph is read for it once."""
        if self.device.provider.sizes != FIXED_SIZES:
            return {}
        if submodel not in self._dimensions:
            self._dimensions[submodel] = sessions.dimensions_of(self.package.graph(submodel))
        return sessions.sizes_of(self._dimensions[submodel], inputs)

    def _load(self, submodel: str, sizes: Mapping[str, int]) -> Loaded:
        task = f"load-{submodel}"
        upcast = submodel in self.upcast
        with underway(self.listener, Started(task=task, label=f"{submodel}: loading", total=None)):
            weights = self.adapters.weights(self.package, submodel)
            loaded = sessions.load(
                self.package.graph(submodel),
                self.device,
                sizes,
                upcast=upcast,
                # Float32 among float16 submodels is there for its range, not for its precision.
                exact=self.package.is_fp32,
                edits=(*self.adapters.edits(self.package, submodel, weights), *self._edits(submodel)),
                weights=weights,
                replayed=submodel not in self._not_replayed,
            )
        share = f"{loaded.placement.node_share:.0%} of {sum(loaded.placement.nodes.values())} nodes"
        self.listener(Finished(task=task, note=f"{share} on {self.device.provider.label}"))
        before = self._usage.get(submodel)
        self._usage[submodel] = Usage(
            placement=loaded.placement,
            load_seconds=(*(before.load_seconds if before else ()), loaded.load_seconds),
            run_seconds=before.run_seconds if before else (),
            upcast=upcast,
        )
        return loaded

    def _edits(self, submodel: str) -> tuple[Edit, ...]:
        count = self.skipped.get(submodel, 0)
        kind = next(each.kind for each in self.package.submodels if each.name == submodel)
        if not count or kind.skip_layers is None:
            return ()
        return (partial(kind.skip_layers, count=count),)

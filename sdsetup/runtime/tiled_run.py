"""Run a graph that was cut into pieces over tiles of the image, one piece after the other.

Results between pieces are kept in main memory, in the graph's own type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from conversions.events import Advanced, Finished, Listener, Started, underway
from conversions.tiling.cut import Cut, Piece
from conversions.tiling.moments import Moments
from conversions.tiling.piece_graph import COUNTED, FACTOR, MEAN, SQUARES, SUMMAND
from conversions.tiling.windows import Window, windows
from conversions.verification.ep_assignment import Placement
from conversions.weights import initializer
from sdsetup.runtime import sessions
from sdsetup.runtime.sessions import Array, Arrays, Loaded

if TYPE_CHECKING:
    import onnx_ir as ir

Open = Callable[["ir.Model", Arrays], Loaded]
"""Opens a part of the graph for inputs."""


@dataclass(frozen=True, kw_only=True)
class TiledRun:
    """What a run over tiles gave.

    Attributes:
        outputs: By name, floats as float32.
        placement: Where the nodes of all parts ran.
        load_seconds: Time of opening all parts.
        run_seconds: Time of all runs.
    """

    outputs: dict[str, Array]
    placement: Placement
    load_seconds: float
    run_seconds: float


def run_in_tiles(
    parts: Cut, inputs: Arrays, side: int, *, open_part: Open, what: str, listener: Listener
) -> TiledRun:
    """Run each piece over all tiles, head and foot whole; each part is closed before the next opens.

    Args:
        parts: The graph.
        inputs: Its inputs, by name.
        side: Of a tile, in pixels of the image.
        open_part: Opens a part.
        what: What is run, as messages name it.
        listener: Hears of the tiles that are done.

    Raises:
        SetupError: ONNX Runtime failed.
        DeviceLostError: The device is gone.
    """
    return _Run(parts=parts, side=side, open_part=open_part, what=what, listener=listener).run(inputs)


@dataclass(kw_only=True)
class _Run:
    parts: Cut
    side: int
    open_part: Open
    what: str
    listener: Listener
    _size: tuple[int, int] = field(default=(0, 0), init=False)
    _kept: dict[str, Array] = field(default_factory=dict, init=False)
    _moments: dict[str, Moments] = field(default_factory=dict, init=False)
    _placement: Placement | None = field(default=None, init=False)
    _load_seconds: float = field(default=0.0, init=False)
    _run_seconds: float = field(default=0.0, init=False)
    _done: int = field(default=0, init=False)

    def run(self, inputs: Arrays) -> TiledRun:
        self._kept = dict(inputs)
        if self.parts.head is not None:
            self._kept = self._run_whole(self.parts.head, inputs)
        height, width = next(iter(self._kept.values())).shape[2:]
        self._size = (height // self.parts.first_scale, width // self.parts.first_scale)
        task = f"{self.what}-tiles"
        total = sum(len(list(self._tiles(piece))) for piece in self.parts.pieces)
        label = f"{self.what}: running in tiles"
        with underway(self.listener, Started(task=task, label=label, total=total, unit="tiles")):
            for piece in self.parts.pieces:
                self._run_piece(piece, task)
            if self.parts.foot is not None:
                self._kept = self._run_whole(self.parts.foot, self._kept)
            self.listener(Finished(task=task, note=f"{total} tiles in {len(self.parts.pieces)} pieces"))
        assert self._placement is not None
        return TiledRun(
            outputs={name: value.astype(np.float32, copy=False) for name, value in self._kept.items()},
            placement=self._placement,
            load_seconds=self._load_seconds,
            run_seconds=self._run_seconds,
        )

    def _run_whole(self, model: ir.Model, inputs: Arrays) -> dict[str, Array]:
        results, loaded = self._computed(self._opened(model, inputs), inputs)
        self._count(loaded.placement)
        return results

    def _tiles(self, piece: Piece) -> Iterator[tuple[Window, Window]]:
        """Return the windows of a piece, rows and columns."""
        height, width = (size * piece.scale for size in self._size)
        most = self.parts.window(piece, self.side)
        for rows in windows(height, most, piece.halo):
            for columns in windows(width, most, piece.halo):
                yield rows, columns

    def _run_piece(self, piece: Piece, task: str) -> None:
        fixed = self._normalizing(piece)
        loaded: Loaded | None = None
        for rows, columns in self._tiles(piece):
            feeds = {**fixed, **self._windows(piece, rows, columns)}
            if loaded is None:
                loaded = self._opened(piece.model, feeds)
            results, loaded = self._computed(loaded, feeds)
            self._keep(piece, rows, columns, results)
            self._done += 1
            self.listener(Advanced(task=task, done=self._done))
        assert loaded is not None
        self._count(loaded.placement)
        for name in piece.last_read:
            del self._kept[name]

    def _normalizing(self, piece: Piece) -> dict[str, Array]:
        feeds: dict[str, Array] = {}
        for norm in piece.norms:
            assert norm.weight is not None and norm.bias is not None
            weight, bias = (initializer.read(each).astype(np.float64) for each in (norm.weight, norm.bias))
            factor, summand = self._moments[norm.value].normalizing(norm.groups, norm.epsilon, weight, bias)
            feeds |= {FACTOR.format(norm.name): factor, SUMMAND.format(norm.name): summand}
        return feeds

    def _windows(self, piece: Piece, rows: Window, columns: Window) -> dict[str, Array]:
        feeds = {
            name: self._kept[name][:, :, rows.read.scaled(times), columns.read.scaled(times)]
            for name, times in piece.inputs.items()
        }
        for times in {piece.outputs[name] for name in piece.measured}:
            size = (1, 1, rows.read.length * times, columns.read.length * times)
            counted = np.zeros(size, np.float32)
            counted[:, :, _given(rows, times), _given(columns, times)] = 1
            feeds[COUNTED.format(times)] = counted
        return feeds

    def _keep(self, piece: Piece, rows: Window, columns: Window, results: Arrays) -> None:
        height, width = (size * piece.scale for size in self._size)
        for name, times in piece.outputs.items():
            result = results[name]
            if name not in self._kept:
                shape = (*result.shape[:2], height * times, width * times)
                self._kept[name] = np.empty(shape, result.dtype)
            given = result[:, :, _given(rows, times), _given(columns, times)]
            self._kept[name][:, :, rows.given.scaled(times), columns.given.scaled(times)] = given
        for name in piece.measured:
            count = rows.given.length * columns.given.length * piece.outputs[name] ** 2
            mean, squares = (
                results[each.format(name)][:, :, 0, 0].astype(np.float64) for each in (MEAN, SQUARES)
            )
            moments = Moments(count=count, mean=mean, squares=squares)
            before = self._moments.get(name)
            self._moments[name] = moments if before is None else before.joined(moments)

    def _opened(self, model: ir.Model, inputs: Arrays) -> Loaded:
        loaded = self.open_part(model, inputs)
        self._load_seconds += loaded.load_seconds
        return loaded

    def _computed(self, loaded: Loaded, inputs: Arrays) -> tuple[dict[str, Array], Loaded]:
        started = perf_counter()
        results, loaded = sessions.run(loaded, inputs, f"running {self.what} in tiles", widen=False)
        self._run_seconds += perf_counter() - started
        return results, loaded

    def _count(self, placement: Placement) -> None:
        self._placement = placement if self._placement is None else self._placement.joined(placement)


def _given(window: Window, times: int) -> slice:
    return window.given.within(window.read).scaled(times)

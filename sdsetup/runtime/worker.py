"""Run submodels in a worker process that is restarted when the device is lost.

A driver reset invalidates every session of a process, and DirectML releases memory only when the process
ends. A run depends on its inputs alone, so a lost run is repeated in a new process.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from conversions.events import Event, Listener, Notice, ignore
from conversions.package.layout import Package
from sdsetup.errors import SetupError
from sdsetup.redaction import redact_process_output
from sdsetup.runtime.adapters import PackageAdapters
from sdsetup.runtime.autoencoder_tiles import with_smaller
from sdsetup.runtime.devices import Device
from sdsetup.runtime.runner import LocalRunner, Usage
from sdsetup.runtime.sessions import Array, Arrays, DeviceLostError
from sdsetup.runtime.shared_channel import SharedChannel

logger = logging.getLogger(__name__)

_LOST = (DeviceLostError, EOFError, ConnectionError)
"""What is raised where the device, the worker or the connection to it is gone."""

# After this many failures of the same run, give up.
_ATTEMPTS = 3
_GOODBYE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class _Progress:
    event: Event


@dataclass(frozen=True, kw_only=True)
class _Result:
    value: Any
    usage: Mapping[str, Usage]


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Fields of an exception, since exceptions with their own constructor cannot be pickled."""

    lost: bool
    code: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        if isinstance(error, SetupError):
            return cls(lost=False, code=error.code, message=error.message, hint=error.hint)
        lost = isinstance(error, DeviceLostError)
        text = str(error) if lost else f"the worker process failed: {type(error).__name__}: {error}"
        return cls(lost=lost, code="runtime.worker", message=text, hint="sdsetup doctor checks the machine.")

    def raised(self) -> Exception:
        return DeviceLostError(self.message) if self.lost else SetupError(self.code, self.message, self.hint)


def _serve(
    channel: SharedChannel,
    package: Package,
    device: Device,
    low_memory: bool,
    upcast: frozenset[str],
    skipped: Mapping[str, int],
    adapters: PackageAdapters,
    tiles: Mapping[str, int],
) -> None:
    """Serve requests until the channel is closed; the main function of the worker process."""
    redact_process_output()
    # Ctrl-C reaches every process of a console; only the parent reacts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runner = LocalRunner(
        package=package,
        device=device,
        low_memory=low_memory,
        listener=lambda event: channel.send(_Progress(event=event)),
        upcast=upcast,
        skipped=skipped,
        adapters=adapters,
        tiles=tiles,
    )
    # Where the parent has closed its end, nobody waits for an answer.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            verb, arguments = channel.recv()
            try:
                answer: _Result | _Failure = _Result(
                    value=getattr(runner, verb)(*arguments), usage=runner.usage()
                )
            except Exception as error:  # noqa: BLE001 - it is raised again in the parent
                answer = _Failure.of(error)
            channel.send(answer)
            if isinstance(answer, _Failure) and answer.lost:
                return


@dataclass(kw_only=True)
class WorkerRunner:
    """Runs submodels in a worker process, and restarts it when the device is lost.

    Attributes:
        package: The package.
        device: Where they run.
        low_memory: Close each submodel as soon as the next stage begins.
        listener: Receives events when submodels are loaded and when a worker is lost.
        upcast: Float16 submodels that run in float32, in each worker that is started.
        skipped: Layers to leave out at a submodel's end, by name, in each worker that is started.
        adapters: Merged into the weights by each worker that is started.
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
    _process: BaseProcess | None = field(default=None, init=False)
    _channel: SharedChannel | None = field(default=None, init=False)
    _usage: dict[str, Usage] = field(default_factory=dict, init=False)
    _opening: list[str] = field(default_factory=list, init=False)

    @property
    def process_id(self) -> int | None:
        """The worker's process, None before the first run."""
        return self._process.pid if self._process is not None else None

    def run(self, submodel: str, inputs: Arrays) -> dict[str, Array]:
        """Run a submodel once; retry in a new worker if the device or the worker is lost.

        Raises:
            SetupError: The device was lost several times in succession.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                outputs: dict[str, Array] = self._ask("run", submodel, dict(inputs))
            except _LOST as error:
                self._end()
                reason = str(error) or "the worker process ended"
                if attempt < _ATTEMPTS:
                    self.listener(
                        Notice(
                            text=f"the device was lost ({reason}); running {submodel} again in a new process."
                        )
                    )
            else:
                return outputs
        raise SetupError(
            "device.lost",
            f"{self.device} was lost {_ATTEMPTS} times while running {submodel}.",
            "update the graphics driver, or use a smaller image, --low-vram or --provider cpu.",
        )

    def begin(self) -> None:
        """Start the worker, which takes seconds to import what it needs."""
        self._connected()

    def opens_ahead(self, submodel: str) -> bool:
        """Whether a submodel has not been opened and is to stay open."""
        stays_open = not self.low_memory and submodel not in self.tiles
        return stays_open and submodel not in self._usage and submodel not in self._opening

    def open_ahead(self, submodel: str, sizes: Mapping[str, int]) -> None:
        """Let the worker open a submodel; what it answers is read before the next request."""
        try:
            self._connected().send(("open_ahead", (submodel, dict(sizes))))
        except OSError:
            self._end()
        else:
            self._opening.append(submodel)

    def upcast_to_fp32(self, submodel: str) -> None:
        """Run a float16 submodel in float32 from its next run on, on the same stored weights."""
        self.upcast |= {submodel}
        self._tell("upcast_to_fp32", submodel)

    def skip_layers(self, submodel: str, count: int) -> None:
        """Leave out the last layers of a submodel from its next run on."""
        self.skipped = {**self.skipped, submodel: count}
        self._tell("skip_layers", submodel, count)

    def shrink_tiles(self, submodel: str) -> int | None:
        """Run a submodel in tiles, or in smaller ones, in a new worker: this one has memory that it keeps."""
        tiles = with_smaller(self.tiles, submodel, self.package) if self.may_tile else None
        if tiles is None:
            return None
        self.tiles, self.low_memory = tiles, True
        self.device = replace(self.device, winograd=False)
        self._end()
        return tiles[submodel]

    def done_with(self, submodel: str) -> None:
        """Close a submodel if memory is short."""
        self._tell("done_with", submodel)

    def usage(self) -> Mapping[str, Usage]:
        """Return the statistics of each submodel."""
        return dict(self._usage)

    def close(self) -> None:
        """End the worker, which releases all memory."""
        self._end()

    def _tell(self, verb: str, *arguments: Any) -> None:
        """Tell the worker what another one knows from its start."""
        if self._channel is None:
            return
        try:
            self._ask(verb, *arguments)
        except _LOST:
            self._end()

    def _ask(self, verb: str, *arguments: Any) -> Any:
        self._settle()
        channel = self._connected()
        channel.send((verb, arguments))
        return self._answer(channel)

    def _settle(self) -> None:
        """Read the answers to what is being opened; what failed is done again by a run, which says so."""
        while self._opening and self._channel is not None:
            del self._opening[0]
            try:
                self._answer(self._channel)
            except _LOST:
                self._end()
            except SetupError as error:
                logger.info("a submodel was not opened ahead of its first run: %s", error.message)

    def _answer(self, channel: SharedChannel) -> Any:
        assert self._process is not None
        while True:
            # On Windows this process has the worker's end too until the worker takes it: one that ends before
            # breaks no connection.
            if channel.connection not in wait([channel.connection, self._process.sentinel]):
                raise EOFError("the worker process ended")
            match channel.recv():
                case _Progress(event=event):
                    self.listener(event)
                case _Result(value=value, usage=usage):
                    self._usage.update(usage)
                    return value
                case _Failure() as failure:
                    raise failure.raised()

    def _connected(self) -> SharedChannel:
        if self._channel is None:
            # "spawn" exists on all systems, and a forked ONNX Runtime would hang.
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve,
                args=(
                    SharedChannel(connection=theirs),
                    self.package,
                    self.device,
                    self.low_memory,
                    self.upcast,
                    self.skipped,
                    self.adapters,
                    self.tiles,
                ),
                daemon=True,
            )
            try:
                process.start()
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            self._channel, self._process = SharedChannel(connection=ours), process
        return self._channel

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            if self._opening:  # opening takes seconds, and nobody waits for it any more
                self._process.kill()
            self._process.join(_GOODBYE_SECONDS)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._channel = self._process = None
        self._opening.clear()


def make_runner(
    package: Package,
    device: Device,
    *,
    low_memory: bool,
    listener: Listener = ignore,
    adapters: PackageAdapters | None = None,
    tiles: Mapping[str, int] | None = None,
    may_tile: bool = True,
) -> LocalRunner | WorkerRunner:
    """Return a runner suited to the device's provider."""
    kind = WorkerRunner if device.provider.own_process else LocalRunner
    return kind(
        package=package,
        device=device,
        low_memory=low_memory,
        listener=listener,
        adapters=adapters or PackageAdapters(),
        tiles=tiles or {},
        may_tile=may_tile,
    )

"""Run some of a package's submodels in a second runner: on another device, or beside the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdsetup.errors import SetupError
from sdsetup.runtime.devices import Device
from sdsetup.runtime.runner import Runner, Usage
from sdsetup.runtime.sessions import OUT_OF_MEMORY, Array, Arrays


@dataclass(frozen=True, kw_only=True)
class RunnerPair:
    """A runner made of two.

    Attributes:
        main: Runs what the other does not; its device is the one that is named.
        other: Runs the submodels of ``elsewhere``.
        elsewhere: Their names.
    """

    main: Runner
    other: Runner
    elsewhere: frozenset[str]

    @property
    def device(self) -> Device:
        """Where most submodels run, the denoiser among them."""
        return self.main.device

    def run(self, submodel: str, inputs: Arrays) -> dict[str, Array]:
        """Run a submodel once where it belongs.

        If memory of a device that both share runs out, the other runner gives its own back, and the run is
        retried once.
        """
        runner = self._of(submodel)
        try:
            return runner.run(submodel, inputs)
        except SetupError as error:
            if error.code != OUT_OF_MEMORY or self.main.device != self.other.device:
                raise
        (self.main if runner is self.other else self.other).close()
        return runner.run(submodel, inputs)

    def begin(self) -> None:
        """Start the processes of both."""
        self.main.begin()
        self.other.begin()

    def opens_ahead(self, submodel: str) -> bool:
        """Whether opening a submodel before its first run saves time."""
        return self._of(submodel).opens_ahead(submodel)

    def open_ahead(self, submodel: str, sizes: Mapping[str, int]) -> None:
        """Begin to open a submodel where it belongs."""
        self._of(submodel).open_ahead(submodel, sizes)

    def upcast_to_fp32(self, submodel: str) -> None:
        """Run a float16 submodel in float32 from its next run on."""
        self._of(submodel).upcast_to_fp32(submodel)

    def skip_layers(self, submodel: str, count: int) -> None:
        """Leave out the last layers of a submodel from its next run on."""
        self._of(submodel).skip_layers(submodel, count)

    def shrink_tiles(self, submodel: str) -> int | None:
        """Run a submodel in tiles, or in smaller ones, from its next run on."""
        return self._of(submodel).shrink_tiles(submodel)

    def done_with(self, submodel: str) -> None:
        """Mark a submodel as not needed for now."""
        self._of(submodel).done_with(submodel)

    def usage(self) -> Mapping[str, Usage]:
        """Return the statistics of each submodel."""
        return {**self.other.usage(), **self.main.usage()}

    def close(self) -> None:
        """Release all memory of both."""
        try:
            self.main.close()
        finally:
            self.other.close()

    def _of(self, submodel: str) -> Runner:
        return self.other if submodel in self.elsewhere else self.main

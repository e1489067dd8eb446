"""Run some of a package's submodels on another device, such as large text encoders on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdsetup.runtime.devices import Device
from sdsetup.runtime.runner import Runner, Usage
from sdsetup.runtime.sessions import Array, Arrays


@dataclass(frozen=True, kw_only=True)
class TwoDevices:
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
        """Run a submodel once where it belongs."""
        return self._of(submodel).run(submodel, inputs)

    def upcast_to_fp32(self, submodel: str) -> None:
        """Run a float16 submodel in float32 from its next run on."""
        self._of(submodel).upcast_to_fp32(submodel)

    def skip_layers(self, submodel: str, count: int) -> None:
        """Leave out the last layers of a submodel from its next run on."""
        self._of(submodel).skip_layers(submodel, count)

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

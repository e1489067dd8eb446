"""The steps of a conversion, and how far along one is: "step 3 of 6: writing weights, about 40 s left"."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from conversions.events import Step
from sdsetup.durations import in_words

if TYPE_CHECKING:
    from conversions.plan import ConversionPlan

# On two cores (docs/benchmarks.md). The steps that end correct what is said of the others.
_DOWNLOAD_BYTES_A_SECOND = 20e6
_TRACE_SECONDS = 30.0
_WRITE_BYTES_A_SECOND = 400e6
_REFERENCE_BYTES_A_SECOND = 150e6
_CHECK_BYTES_A_SECOND = 250e6
_START_SECONDS = 5.0
# The smoke test of a small package; that of a large one keeps to a limit where there is no GPU.
_IMAGE_SECONDS, _MOST_IMAGE_SECONDS = 12.0, 45.0
_IMAGE_BYTES_A_SECOND = 30e6
# That machines are as fast as usual counts as much as a step of this length: a short one tells little.
_TRUST_SECONDS = 20.0


def conversion_steps(
    plan: ConversionPlan, *, download_bytes: int, verify: bool, image: bool
) -> tuple[Step, ...]:
    """Return the steps of a conversion.

    Args:
        plan: What is converted.
        download_bytes: What is downloaded before; 0 for nothing.
        verify: Whether the package is verified.
        image: Whether a first image is made with it.
    """
    source = sum(part.source_bytes for part in plan.components)
    package = sum(part.package_bytes for part in plan.components)
    to_trace = [
        name for part in plan.components for name, origin in part.submodels.items() if origin == "to trace"
    ]
    steps = []
    if download_bytes:
        seconds = download_bytes / _DOWNLOAD_BYTES_A_SECOND
        steps.append(replace(_step("downloading", seconds, "download"), tells_pace=False))
    if to_trace:
        steps.append(_step("tracing graphs", _TRACE_SECONDS * len(to_trace), "trace"))
    writing = [part.name for part in plan.components]
    steps.append(_step("writing weights", 1 + package / _WRITE_BYTES_A_SECOND, *writing))
    if verify:
        seconds = _START_SECONDS + source / _REFERENCE_BYTES_A_SECOND
        steps.append(_step("computing the reference", seconds, "reference", "range"))
        seconds = _START_SECONDS + package / _CHECK_BYTES_A_SECOND
        steps.append(_step("checking the package", seconds, "files", "run"))
    if image:
        seconds = min(_MOST_IMAGE_SECONDS, _IMAGE_SECONDS + package / _IMAGE_BYTES_A_SECOND)
        steps.append(_step("making the first image", seconds, "load", "denoise"))
    return tuple(steps)


@dataclass(kw_only=True)
class StepClock:
    """Knows which step a command is at, and guesses how long the rest takes.

    Attributes:
        steps: The steps, in their order.
    """

    steps: tuple[Step, ...]
    _place: int = field(default=-1, init=False)
    _entered: float = field(default=0.0, init=False)
    _took: float = field(default=0.0, init=False)
    _usual: float = field(default=0.0, init=False)

    def start(self, task: str, now: float) -> None:
        """Take note that a task has started, at seconds of any clock; no earlier step comes back."""
        word = re.split(r"[ -]", task)[0]
        for place in range(self._place + 1, len(self.steps)):
            if self.steps[place].tasks & {word, task}:
                if self._place >= 0 and (ended := self.steps[self._place]).tells_pace:
                    self._took += now - self._entered
                    self._usual += ended.seconds
                self._place, self._entered = place, now
                return

    @property
    def title(self) -> str:
        """Which step it is; empty before the first."""
        if self._place < 0:
            return ""
        return f"step {self._place + 1} of {len(self.steps)}: {self.steps[self._place].label}"

    def seconds_left(self, now: float) -> float | None:
        """Guess how long the rest takes, by how long the steps so far took; None before one has ended."""
        if not self._usual:
            return None
        pace = (self._took + _TRUST_SECONDS) / (self._usual + _TRUST_SECONDS)
        rest = pace * sum(step.seconds for step in self.steps[self._place :]) - (now - self._entered)
        after = pace * sum(step.seconds for step in self.steps[self._place + 1 :])
        return max(rest, after)

    def text(self, now: float) -> str:
        """Return what a person reads."""
        left = self.seconds_left(now)
        return self.title if not self.title or left is None else f"{self.title}, {in_words(left)} left"


def _step(label: str, seconds: float, *tasks: str) -> Step:
    return Step(label=label, tasks=frozenset(tasks), seconds=seconds)

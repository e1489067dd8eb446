"""Measure how fast a package generates images on this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

import psutil

from conversions.events import Advanced, Finished, Listener, Started, ignore
from conversions.package.layout import Package
from sdsetup import __version__
from sdsetup.bootstrap.installer import FLAVOUR_DISTRIBUTIONS
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request, complete
from sdsetup.runtime.memory_peak import measure_memory_peak
from sdsetup.runtime.runner import Runner, Usage
from sdsetup.runtime.runner_pair import RunnerPair
from sdsetup.runtime.worker import WorkerRunner


@dataclass(frozen=True, kw_only=True)
class SubmodelTimes:
    """One submodel's times.

    Attributes:
        load_seconds: Load time.
        first_seconds: First run, which includes compiling kernels.
        run_seconds: Median of the other runs; the first run if there was no other.
        runs: Number of runs.
        nodes: Nodes by provider.
        time_share: Share of the time on the requested provider; None when unknown.
    """

    load_seconds: float
    first_seconds: float
    run_seconds: float
    runs: int
    nodes: Mapping[str, int]
    time_share: float | None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Result of a benchmark.

    Attributes:
        request: The image request.
        runs: Number of timed batches, after one for warm-up.
        seconds_per_image: Median over the timed batches, divided by the batch's size.
        seconds_per_step: Median denoiser run of the timed batches, for the whole batch, times the runs that
            a step takes: two where both prompts of classifier-free guidance have one each.
        first_image_seconds: The batch that was not timed: with all loading.
        submodels: By name.
        peak_ram_bytes: Peak memory of the process that ran the submodels.
        peak_vram_bytes: Peak graphics memory; None where this system does not report it.
        machine: Facts about the machine.
    """

    request: Request
    runs: int
    seconds_per_image: float
    seconds_per_step: float
    first_image_seconds: float
    submodels: Mapping[str, SubmodelTimes]
    peak_ram_bytes: int
    peak_vram_bytes: int | None
    machine: Mapping[str, Any]

    def as_document(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


def benchmark(
    package: Package, runner: Runner, request: Request, *, runs: int, listener: Listener = ignore
) -> Benchmark:
    """Generate one batch to warm up, then time ``runs`` more.

    Raises:
        UsageError: A value of the request is out of range.
        SetupError: A submodel failed.
    """
    request = complete(request, package)
    quiet = Pipeline(package=package, runner=runner)
    with measure_memory_peak(runner.device, lambda: _processes_of(runner)) as peak:
        first = Pipeline(package=package, runner=runner, listener=listener).generate(request)
        warm = {name: len(used.run_seconds) for name, used in runner.usage().items()}
        listener(Started(task="timed", label="timing images", total=runs, unit="images"))
        timed = []
        for place in range(1, runs + 1):
            timed.append(quiet.generate(replace(request, seed=request.seed + place)))
            listener(Advanced(task="timed", done=place))
        listener(Finished(task="timed"))
    usage = runner.usage()
    (denoiser,) = package.with_role("denoiser")
    denoised = usage[denoiser].run_seconds[warm[denoiser] :]
    runs_a_step = len(denoised) / sum(made.evaluations for made in timed)
    return Benchmark(
        request=request,
        runs=runs,
        seconds_per_image=median(made.total_seconds for made in timed) / request.images,
        seconds_per_step=median(denoised) * runs_a_step,
        first_image_seconds=first.total_seconds,
        submodels={name: _times(used) for name, used in usage.items()},
        peak_ram_bytes=peak.ram_bytes,
        peak_vram_bytes=peak.vram_bytes,
        machine=machine(package, runner),
    )


def machine(package: Package, runner: Runner) -> dict[str, Any]:
    """Return facts that make results comparable, without anything that identifies the machine."""
    return {
        "device": runner.device.name,
        "device_memory_bytes": runner.device.memory_bytes,
        "provider": runner.device.provider.name,
        "onnxruntime": _onnxruntime(),
        "sdsetup": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "ram_bytes": psutil.virtual_memory().total,
        "package": package.name,
        "origin": package.origin,
        "precision": package.manifest.get("precision"),
    }


def _times(used: Usage) -> SubmodelTimes:
    return SubmodelTimes(
        load_seconds=used.load_seconds[0],
        first_seconds=used.run_seconds[0],
        run_seconds=median(used.run_seconds[1:] or used.run_seconds),
        runs=len(used.run_seconds),
        nodes=dict(used.placement.nodes),
        time_share=used.placement.time_share,
    )


def _processes_of(runner: Runner) -> frozenset[int]:
    """Return the processes that run submodels; this one where no other has been started."""
    return _started(runner) or frozenset({os.getpid()})


def _started(runner: Runner) -> frozenset[int]:
    if isinstance(runner, RunnerPair):
        return _started(runner.main) | _started(runner.other)
    if isinstance(runner, WorkerRunner):
        return frozenset() if runner.process_id is None else frozenset({runner.process_id})
    return frozenset({os.getpid()})


def _onnxruntime() -> str:
    for name in sorted(FLAVOUR_DISTRIBUTIONS.values(), key="onnxruntime".__eq__):  # the plain one last
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "unknown"

"""The conversion: graphs, weights, verification, publication, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from conversions.checkpoint.folder import Checkpoint
from conversions.component import Job, demand_space, link_weights, make_component
from conversions.errors import ConversionError
from conversions.events import Finished, Listener, Notice, Started
from conversions.family import Submodel
from conversions.graphs.obtain import demand_tracing, obtain
from conversions.isolated_process import isolated_process
from conversions.options import Options
from conversions.package.destination import reserved
from conversions.package.layout import GRAPH_FILE, Package, Staging
from conversions.package.manifest import KEPT, make_manifest, parity_entry
from conversions.package.needs import memory_entry
from conversions.package.package_metadata import copy_pipeline_files
from conversions.plan import ConversionPlan, wanted_submodels
from conversions.providers.devices import Device
from conversions.providers.table import provider_for
from conversions.tokenizers.compare import compare_tokenizers
from conversions.verification.fp16_overflow import (
    any_overflow,
    deviates_too_far,
    leaves_range,
    measure_ranges,
)
from conversions.verification.parity import ParityReport, verify
from conversions.verification.reference import Arrays, Reference, make_inputs
from conversions.verification.references import ReferenceKind, default_reference, run_references
from conversions.weights.link import FileHashes


@dataclass(frozen=True, kw_only=True)
class Checks:
    """How a package is verified before it is published.

    Attributes:
        device: Where the submodels run.
        reference: What computes the numbers that they are compared with.
    """

    device: Device
    reference: ReferenceKind = field(default_factory=default_reference)


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A finished conversion.

    Attributes:
        package: The published package.
        report: What verification found; None when it was not asked for.
        plan: What was carried out.
    """

    package: Package
    report: ParityReport | None
    plan: ConversionPlan


def convert(
    plan: ConversionPlan,
    checkpoint: Checkpoint,
    output: Path,
    *,
    tool_version: str,
    graph_cache: Path | None,
    checks: Checks | None,
    overwrite: bool = False,
    retrace: bool = False,
    listener: Listener,
) -> Converted:
    """Carry out a plan.

    Args:
        plan: What to do.
        checkpoint: Where the bytes come from.
        output: Folder of the package; appears whole or not at all.
        tool_version: Goes into the manifest.
        graph_cache: Folder of traced graphs; None keeps none.
        checks: How to verify; None verifies nothing.
        overwrite: Whether a package at ``output`` is replaced, once the new one is verified.
        retrace: Whether graphs at hand are traced anew.
        listener: Told of the progress.

    Raises:
        ConversionError: Something in the checkpoint, the disk or the result is not as it must be; nothing is
            published, and what was finished is kept for the next run.
    """
    demand_tracing(plan.submodels if retrace else plan.to_trace)
    with reserved(output, overwrite=overwrite), FileHashes(checkpoint.storage) as hashes:
        measured = checks if checks is not None and _comparable(checkpoint, listener) else None
        # Where nothing is measured, other nodes stay in float32 (see ``adapt``): that is another package.
        safe = measured is None and provider_for(plan.options.target).fp16_variance
        staging = Staging(output, f"{plan.fingerprint} unmeasured" if safe else plan.fingerprint)
        staging.begin()
        job = Job(plan=plan, checkpoint=checkpoint, staging=staging, hashes=hashes, listener=listener)
        submodels = wanted_submodels(checkpoint, plan.options)
        todo = [part for part in plan.components if staging.finished(part.name) is None]
        if len(todo) < len(plan.components):
            listener(Notice(text="Going on where an earlier run was interrupted."))
        linked = {part.name: link_weights(job, part) for part in todo}
        demand_space(job, todo, linked)
        names = {part.name for part in todo}
        waiting = [submodel for submodel in submodels if submodel.component in names]
        models = obtain(waiting, checkpoint, graph_cache, retrace, listener)
        for part in todo:
            make_component(job, part, models, linked[part.name], None if measured is None else {})
        copy_pipeline_files(checkpoint, plan.options, staging)
        by_name = {submodel.name: submodel for submodel in submodels}
        references: Mapping[str, Reference] = {}
        if measured is not None:
            inputs = {
                name: make_inputs(each.kind, checkpoint.config_of(each), each.kind.sizes)
                for name, each in by_name.items()
            }
            if measured.reference == "pytorch":  # transformers come with it
                _compare_tokenizers(checkpoint, staging.folder)
            made = Package(folder=staging.folder, manifest=make_manifest(plan, checkpoint, staging, ""))
            quantized = {name: made.quantized(name) for name in by_name}
            references = run_references(
                by_name,
                checkpoint,
                inputs,
                quantized,
                listener,
                kind=measured.reference,
                graph_cache=graph_cache,
            )
            ranges = _ranges_left(plan.options, by_name, references, inputs, staging.folder, listener)
            _keep_in_range(job, ranges, graph_cache)
        manifest = make_manifest(plan, checkpoint, staging, tool_version)
        package = Package(folder=staging.folder, manifest=manifest)
        manifest["memory"] = memory_entry(package)
        report = None
        if checks is not None:
            report = verify(
                package,
                None,
                device=checks.device,
                references=references,
                reference=checks.reference,
                listener=listener,
            )
            if not report.passed:
                staging.discard()
                raise ConversionError(
                    "verify.failed",
                    f"The package is not the same model: {'; '.join(report.all_problems)}. "
                    "It was thrown away.",
                )
            manifest = {**manifest, "parity": parity_entry(report)}
        return Converted(package=staging.publish(manifest), report=report, plan=plan)


def _compare_tokenizers(checkpoint: Checkpoint, folder: Path) -> None:
    """Compare the token ids of a fixed list of prompts with transformers', for the tokenizers in a folder.

    Raises:
        ConversionError: ``verify.tokenizer``; names the first prompt that differs.
    """
    for name in checkpoint.tokenizers:
        differing = compare_tokenizers(folder / name)
        if differing:
            raise ConversionError(
                "verify.tokenizer",
                f"{checkpoint.storage.label}/{name} gives other token ids here than with transformers, for "
                f"{len(differing)} of the prompts compared; the first is {differing[0]!r:.80}.",
                "Please report this with the tokenizer's files.",
            )


def _comparable(checkpoint: Checkpoint, listener: Listener) -> bool:
    """Say whether a reference can read the checkpoint too, which wants it on this machine."""
    storage = checkpoint.storage
    files = {name for component in checkpoint.components.values() for name in component.weights.names}
    if all(storage.path_of(name) is not None for name in files):
        return True
    listener(
        Notice(
            text="The checkpoint is not kept here, so no numbers are compared with a reference, "
            "and nobody looks whether they leave float16's range."
        )
    )
    return False


def _ranges_left(
    options: Options,
    submodels: Mapping[str, Submodel],
    references: Mapping[str, Reference],
    inputs: Mapping[str, Arrays],
    folder: Path,
    listener: Listener,
) -> dict[str, Mapping[str, float]]:
    """Measure every value of those submodels in whose reference some number left float16's range.

    Returns:
        Largest magnitudes by submodel and value; nothing of a submodel that stays in range, as most do.
    """
    fp16_variance = provider_for(options.target).fp16_variance
    suspects = [
        name
        for name, reference in references.items()
        if options.is_fp16(submodels[name])
        and (
            leaves_range(reference.largest)
            or (fp16_variance and deviates_too_far(reference.largest_deviation))
        )
    ]
    ranges: dict[str, Mapping[str, float]] = {}
    with isolated_process(
        "measuring activations"
    ) as process:  # which starts with the first call, if there is one
        for name in suspects:
            listener(Started(task=f"range {name}", label=f"{name}: looking for layers that overflow float16"))
            measured = process.call(measure_ranges, folder / name / GRAPH_FILE, inputs[name])
            listener(Finished(task=f"range {name}"))
            if any_overflow(measured, fp16_variance=fp16_variance):
                ranges[name] = measured
    return ranges


def _keep_in_range(job: Job, ranges: Mapping[str, Mapping[str, float]], graph_cache: Path | None) -> None:
    """Make the components of those submodels again, with the layers that overflow in float32."""
    for part in job.plan.components:
        mine = job.submodels_of(part)
        notes = job.staging.finished(part.name)
        kept_before = notes is not None and any(KEPT in each for each in notes["submodels"].values())
        if kept_before or not any(submodel.name in ranges for submodel in mine):
            continue
        job.staging.reopen(part.name)
        models = obtain(mine, job.checkpoint, graph_cache, False, job.listener)
        make_component(job, part, models, link_weights(job, part), ranges)

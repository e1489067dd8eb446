"""The conversion: graphs, weights, verification, publication, one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from conversions.checkpoint.folder import Checkpoint, component_tensors
from conversions.checkpoint.storage import Storage
from conversions.errors import ConversionError
from conversions.events import Advanced, Finished, Listener, Notice, Started
from conversions.family import Submodel
from conversions.graphs.obtain import obtain
from conversions.isolated_process import isolated_process
from conversions.options import Options
from conversions.package.layout import (
    DATA_FILE,
    GRAPH_FILE,
    FileRecord,
    Package,
    Staging,
    record,
    reserved,
    write_json,
)
from conversions.package.manifest import KEPT, describe_submodel, make_manifest, parity_entry
from conversions.package.package_metadata import copy_pipeline_files
from conversions.passes.adapt import IN_RANGE, adapt
from conversions.plan import ConversionPlan, PlannedComponent, wanted_submodels
from conversions.providers.devices import Device
from conversions.providers.table import provider_for
from conversions.tokenizers.compare import compare_tokenizers
from conversions.verification.fp16_overflow import (
    OverflowingNode,
    any_overflow,
    deviates_too_far,
    leaves_range,
    measure_ranges,
)
from conversions.verification.parity import ParityReport, run_references, verify
from conversions.verification.reference import Reference, Tensors, make_inputs
from conversions.weights.binding import Binding, bind
from conversions.weights.expression import all_stored
from conversions.weights.not_finite import not_finite
from conversions.weights.stream import Overflow, stream


@dataclass(frozen=True, kw_only=True)
class Checks:
    """How a package is verified before it is published.

    Attributes:
        device: Where the submodels run.
    """

    device: Device


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A finished conversion.

    Attributes:
        package: The published package.
        report: What verification found; None when it was not asked for.
    """

    package: Package
    report: ParityReport | None


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
    with reserved(output, overwrite=overwrite):
        free = shutil.disk_usage(output.parent).free
        measured = checks is not None and _comparable(checkpoint, listener)
        # Where nothing is measured, other nodes stay in float32 (see ``adapt``): that is another package.
        safe = not measured and provider_for(plan.options.target).fp16_variance
        staging = Staging(output, f"{plan.fingerprint} unmeasured" if safe else plan.fingerprint)
        staging.begin()
        missing = sum(part.package_bytes for part in plan.components if staging.finished(part.name) is None)
        if missing > free:
            raise ConversionError(
                "package.disk_full",
                f"The package needs {missing / 1e9:.1f} GB in {output.parent}; {free / 1e9:.1f} GB are free.",
            )
        submodels = wanted_submodels(checkpoint, plan.options)
        todo = [part for part in plan.components if staging.finished(part.name) is None]
        if len(todo) < len(plan.components):
            listener(Notice(text="Going on where an earlier run was interrupted."))
        names = {part.name for part in todo}
        waiting = [submodel for submodel in submodels if submodel.component in names]
        models = obtain(waiting, checkpoint, graph_cache, retrace, listener)
        for part in todo:
            mine = [submodel for submodel in submodels if submodel.component == part.name]
            _make_component(plan, part, mine, checkpoint, models, staging, {} if measured else None, listener)
        copy_pipeline_files(checkpoint, plan.options, staging)
        by_name = {submodel.name: submodel for submodel in submodels}
        references: Mapping[str, Reference] = {}
        if measured:
            inputs = {
                name: make_inputs(each.kind, checkpoint.config_of(each), each.kind.sizes)
                for name, each in by_name.items()
            }
            _compare_tokenizers(checkpoint)
            references = run_references(by_name, checkpoint, inputs, listener)
            ranges = _ranges_left(plan.options, references, inputs, staging.folder, listener)
            _keep_in_range(plan, submodels, checkpoint, ranges, graph_cache, staging, listener)
        manifest = make_manifest(plan, checkpoint, staging, tool_version)
        package = Package(folder=staging.folder, manifest=manifest)
        report = None
        if checks is not None:
            report = verify(
                package,
                None,
                device=checks.device,
                references=references,
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
        return Converted(package=staging.publish(manifest), report=report)


def _compare_tokenizers(checkpoint: Checkpoint) -> None:
    """Compare the token ids of a fixed list of prompts with transformers'.

    Raises:
        ConversionError: ``verify.tokenizer``; names the first prompt that differs.
    """
    for name in checkpoint.family.tokenizers:
        folder = _folder_of(checkpoint.storage, name)
        differing = () if folder is None else compare_tokenizers(folder)
        if differing:
            raise ConversionError(
                "verify.tokenizer",
                f"{checkpoint.storage.label}/{name} gives other token ids here than with transformers, for "
                f"{len(differing)} of the prompts compared; the first is {differing[0]!r:.80}.",
                "Please report this with the tokenizer's files.",
            )


def _folder_of(storage: Storage, name: str) -> Path | None:
    """Return where a folder of a checkpoint lies on this machine; None when it has no such folder."""
    below = (storage.path_of(each) for each in storage.names() if each.startswith(f"{name}/"))
    return next((path.parent for path in below if path is not None), None)


def _comparable(checkpoint: Checkpoint, listener: Listener) -> bool:
    """Say whether PyTorch can read the checkpoint too, which wants it on this machine."""
    storage = checkpoint.storage
    files = {name for component in checkpoint.components.values() for name in component.weights.names}
    if all(storage.path_of(name) is not None for name in files):
        return True
    listener(
        Notice(
            text="The checkpoint is not kept here, so no numbers are compared with PyTorch's, "
            "and nobody looks whether they leave float16's range."
        )
    )
    return False


def _ranges_left(
    options: Options,
    references: Mapping[str, Reference],
    inputs: Mapping[str, Tensors],
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
        if options.precision_of(name) == "fp16"
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


def _keep_in_range(
    plan: ConversionPlan,
    submodels: Sequence[Submodel],
    checkpoint: Checkpoint,
    ranges: Mapping[str, Mapping[str, float]],
    graph_cache: Path | None,
    staging: Staging,
    listener: Listener,
) -> None:
    """Make the components of those submodels again, with the layers that overflow in float32."""
    for part in plan.components:
        mine = [submodel for submodel in submodels if submodel.component == part.name]
        notes = staging.finished(part.name)
        kept_before = notes is not None and any(KEPT in each for each in notes["submodels"].values())
        if kept_before or not any(submodel.name in ranges for submodel in mine):
            continue
        staging.reopen(part.name)
        models = obtain(mine, checkpoint, graph_cache, False, listener)
        _make_component(plan, part, mine, checkpoint, models, staging, ranges, listener)


def _make_component(
    plan: ConversionPlan,
    part: PlannedComponent,
    submodels: Sequence[Submodel],
    checkpoint: Checkpoint,
    models: Mapping[str, ir.Model],
    staging: Staging,
    ranges: Mapping[str, Mapping[str, float]] | None,
    listener: Listener,
) -> None:
    """Make the submodels of one component in one pass over its weights.

    ``ranges`` holds the largest magnitudes of those submodels that were found to leave float16's range; None
    where none will be measured.
    """
    component = checkpoint.components[part.name]
    kept = {}
    for submodel in submodels:
        name = submodel.name
        measured = None if ranges is None else ranges.get(name, IN_RANGE)
        kept[name] = adapt(
            models[name],
            submodel,
            component.config,
            plan.options,
            checkpoint.recipe.sizes(submodel.role, checkpoint.recipe.native),
            measured,
        )
        if kept[name]:
            listener(Notice(text=_said(name, kept[name], len(models[name].graph))))
    tensors = component_tensors(checkpoint.storage, component)
    pairs = [(submodel, models[submodel.name]) for submodel in submodels]
    bound = bind(part.name, pairs, tensors)
    bindings = bound.bindings
    if bound.ignored:
        listener(Notice(text=bound.notice(part.name)))
    folders = {name: staging.folder / name for name in bindings}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    total = sum(binding.source.stored_bytes for items in bindings.values() for binding in items)
    listener(Started(task=part.name, label=f"{part.name}: writing weights", total=total, unit="bytes"))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        listener(Advanced(task=part.name, done=done))

    paths = {name: folder / DATA_FILE for name, folder in folders.items()}
    streamed = stream(bindings, checkpoint.storage, paths, staging.stream_path(part.name), advance)
    listener(Finished(task=part.name))
    if streamed.overflows:
        stored = all_stored(tensors.values())
        raise not_finite(part.name, checkpoint.storage, stored) or _overflow(streamed.overflows)
    files, notes = {}, {}
    for submodel in submodels:
        name = submodel.name
        model = models[name]
        _write_graph(model, bindings[name], folders[name])
        write_json(folders[name] / "config.json", dict(component.config))
        files[f"{name}/{DATA_FILE}"] = FileRecord(
            sha256=streamed.sha256[name], size_bytes=paths[name].stat().st_size
        )
        for file in (GRAPH_FILE, "config.json"):
            files[f"{name}/{file}"] = record(folders[name] / file)
        notes[name] = describe_submodel(submodel, component.config, model, plan.options, kept[name])
    staging.finish(part.name, files, {"submodels": notes, "sources": dict(streamed.sources)})


def _said(submodel: str, kept: Sequence[OverflowingNode], nodes: int) -> str:
    worst = max(kept, key=lambda each: each.largest)
    return f"{submodel}: {len(kept)} of {nodes} nodes stay in float32, since {worst.layer} {worst.reason}."


def _write_graph(model: ir.Model, bindings: Sequence[Binding], folder: Path) -> None:
    """Write a graph whose weights lie in the external data file that the stream has written."""
    for binding in bindings:
        value = model.graph.initializers[binding.initializer]
        value.metadata_props.clear()
        value.const_value = ir.ExternalTensor(
            DATA_FILE,
            binding.offset,
            binding.size_bytes,
            binding.dtype,
            shape=ir.Shape(binding.shape),
            name=binding.initializer,
            base_dir=folder,
        )
    ir.save(model, folder / GRAPH_FILE)


def _overflow(overflows: Mapping[str, Sequence[Overflow]]) -> ConversionError:
    listed = [
        f"{name}: {found[0].initializer} (largest {found[0].largest:.6g})"
        + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        for name, found in overflows.items()
    ]
    return ConversionError(
        "weights.overflow",
        f"Weights do not fit float16, whose largest number is 65504: {'; '.join(listed)}.",
        details={"submodels": tuple(overflows)},
    )

"""Make the submodels of one component: their graphs, and weights that are linked or written."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from conversions.checkpoint.folder import Checkpoint, component_tensors
from conversions.errors import ConversionError
from conversions.events import Advanced, Finished, Listener, Notice, Started
from conversions.family import Submodel
from conversions.package.layout import DATA_FILE, GRAPH_FILE, FileRecord, Staging, record, write_json
from conversions.package.manifest import describe_submodel
from conversions.passes.adapt import IN_RANGE, adapt
from conversions.plan import ConversionPlan, PlannedComponent, linkable, wanted_submodels
from conversions.verification.fp16_overflow import OverflowingNode
from conversions.weights.binding import Binding, bind
from conversions.weights.expression import Tensors, all_stored
from conversions.weights.link import FileHashes, HashedFile, link_file
from conversions.weights.not_finite import not_finite
from conversions.weights.stream import Overflow, Streamed, stream


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all steps of a conversion share.

    Attributes:
        plan: What to do.
        checkpoint: Where the bytes come from.
        staging: Where the package is built.
        hashes: Of the checkpoint's files that are linked.
        listener: Told of the progress.
    """

    plan: ConversionPlan
    checkpoint: Checkpoint
    staging: Staging
    hashes: FileHashes
    listener: Listener

    def submodels_of(self, part: PlannedComponent) -> list[Submodel]:
        """Return what is made of a component."""
        wanted = wanted_submodels(self.checkpoint, self.plan.options)
        return [submodel for submodel in wanted if submodel.component == part.name]

    def tensors_of(self, part: PlannedComponent) -> Tensors:
        """Return the weights of a component."""
        return component_tensors(self.checkpoint.storage, self.checkpoint.components[part.name])


def link_weights(job: Job, part: PlannedComponent) -> set[str]:
    """Link the files of a component that need no copy into the folder of its first submodel.

    Returns:
        The checkpoint's files that could be linked; the disk may refuse.
    """
    submodels = job.submodels_of(part)
    tensors = job.tensors_of(part)
    linked = set()
    for file in sorted(linkable(job.checkpoint, tensors, job.plan.options, submodels)):
        if _link_into(job, submodels[0], file):
            linked.add(file)
            job.hashes.begin(file, tensors.values())
    return linked


def _link_into(job: Job, submodel: Submodel, file: str) -> bool:
    source = job.checkpoint.storage.path_of(file)
    target = job.staging.folder / submodel.name / linked_name(file)
    target.parent.mkdir(exist_ok=True)
    return source is not None and (target.exists() or link_file(source, target))


def demand_space(job: Job, todo: Sequence[PlannedComponent], linked: Mapping[str, set[str]]) -> None:
    """Stop before the disk is full.

    Raises:
        ConversionError: ``package.disk_full``.
    """
    folder = job.staging.folder.parent
    free = shutil.disk_usage(folder).free
    missing = sum(part.copied_bytes if linked[part.name] else part.package_bytes for part in todo)
    if missing > free:
        raise ConversionError(
            "package.disk_full",
            f"The package needs {missing / 1e9:.1f} GB in {folder}; {free / 1e9:.1f} GB are free.",
        )


def make_component(
    job: Job,
    part: PlannedComponent,
    models: Mapping[str, ir.Model],
    linked: set[str],
    ranges: Mapping[str, Mapping[str, float]] | None,
) -> None:
    """Make the submodels of one component in one pass over its weights.

    Args:
        job: What is converted.
        part: The component.
        models: Graphs of its submodels, changed in place.
        linked: The checkpoint's files that ``link_weights`` linked.
        ranges: Largest magnitudes of those submodels that were found to leave float16's range; None where
            none will be measured.

    Raises:
        ConversionError: Weights and graphs do not belong together, or do not fit the precision.
    """
    plan, checkpoint, staging, listener = job.plan, job.checkpoint, job.staging, job.listener
    component = checkpoint.components[part.name]
    submodels = job.submodels_of(part)
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
    tensors = job.tensors_of(part)
    bound = bind(part.name, [(submodel, models[submodel.name]) for submodel in submodels], tensors, linked)
    if bound.ignored:
        listener(Notice(text=bound.notice(part.name)))
    for submodel in submodels:
        (staging.folder / submodel.name).mkdir(exist_ok=True)
    written = {
        name: items
        for name, bindings in bound.bindings.items()
        if (items := [binding for binding in bindings if not binding.linked])
    }
    in_place = {
        name: {binding.linked for binding in bindings if binding.linked}
        for name, bindings in bound.bindings.items()
    }
    _place_links(job, submodels, linked, in_place)
    streamed, hashes = _write_weights(job, part, written, set().union(*in_place.values()))
    if streamed.overflows or not all(each.finite for each in hashes.values()):
        stored = all_stored(tensors.values())
        wrong = not_finite(part.name, checkpoint.storage, stored)
        raise wrong or _overflow(streamed.overflows, adapted=bool(plan.adapters))
    files, notes, links = {}, {}, {}
    for submodel in submodels:
        name = submodel.name
        folder = staging.folder / name
        _write_graph(models[name], bound.bindings[name], folder)
        write_json(folder / "config.json", dict(component.config))
        if name in written:
            files[f"{name}/{DATA_FILE}"] = FileRecord(
                sha256=streamed.sha256[name], size_bytes=(folder / DATA_FILE).stat().st_size
            )
        for file in sorted(in_place[name]):
            target = f"{name}/{linked_name(file)}"
            files[target] = FileRecord(
                sha256=hashes[file].sha256, size_bytes=checkpoint.storage.size_bytes(file)
            )
            modified_ns = (staging.folder / target).stat().st_mtime_ns
            links[target] = {"file": file, "modified_ns": modified_ns}
        for small in (GRAPH_FILE, "config.json"):
            files[f"{name}/{small}"] = record(folder / small)
        notes[name] = describe_submodel(submodel, component.config, models[name], plan.options, kept[name])
    sources = {**streamed.sources, **{file: each.sha256 for file, each in hashes.items()}}
    staging.finish(part.name, files, {"submodels": notes, "sources": sources, "linked": links})


def _place_links(
    job: Job, submodels: Sequence[Submodel], linked: set[str], in_place: Mapping[str, set[str]]
) -> None:
    """Link each file into the folders of the submodels that use it, and into no other."""
    for submodel in submodels:
        for file in linked:
            target = job.staging.folder / submodel.name / linked_name(file)
            if file not in in_place[submodel.name]:
                target.unlink(missing_ok=True)
            elif not _link_into(job, submodel, file):
                raise ConversionError("package.link_refused", f"{target} cannot be linked to the checkpoint.")


def _write_weights(
    job: Job, part: PlannedComponent, written: Mapping[str, Sequence[Binding]], linked: set[str]
) -> tuple[Streamed, dict[str, HashedFile]]:
    """Stream what has to be written, then wait for the hashes of the files that are linked."""
    storage = job.checkpoint.storage
    total = sum(binding.source.stored_bytes for items in written.values() for binding in items)
    total += sum(storage.size_bytes(file) for file in linked)
    what = "writing weights" if written else "linking weights"
    job.listener(Started(task=part.name, label=f"{part.name}: {what}", total=total, unit="bytes"))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        job.listener(Advanced(task=part.name, done=done))

    paths = {name: job.staging.folder / name / DATA_FILE for name in written}
    streamed = stream(written, storage, paths, job.staging.stream_path(part.name), advance)
    hashes = {file: job.hashes.wait(file, advance) for file in sorted(linked)}
    job.listener(Finished(task=part.name))
    return streamed, hashes


def linked_name(file: str) -> str:
    """Return what a file of the checkpoint is called in a submodel's folder."""
    return file.rpartition("/")[2]


def _said(submodel: str, kept: Sequence[OverflowingNode], nodes: int) -> str:
    worst = max(kept, key=lambda each: each.largest)
    return f"{submodel}: {len(kept)} of {nodes} nodes stay in float32, since {worst.layer} {worst.reason}."


def _write_graph(model: ir.Model, bindings: Sequence[Binding], folder: Path) -> None:
    """Write a graph whose weights lie in what the stream has written, or in linked files."""
    for binding in bindings:
        value = model.graph.initializers[binding.initializer]
        value.metadata_props.clear()
        value.const_value = ir.ExternalTensor(
            linked_name(binding.linked) if binding.linked else DATA_FILE,
            binding.offset,
            binding.size_bytes,
            binding.dtype,
            shape=ir.Shape(binding.shape),
            name=binding.initializer,
            base_dir=folder,
        )
    ir.save(model, folder / GRAPH_FILE)


def _overflow(overflows: Mapping[str, Sequence[Overflow]], *, adapted: bool) -> ConversionError:
    listed = [
        f"{name}: {found[0].initializer} (largest {found[0].largest:.6g})"
        + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        for name, found in overflows.items()
    ]
    if adapted and any(math.isinf(each.largest) for found in overflows.values() for each in found):
        return ConversionError(
            "lora.weight",
            f"With the adapters merged, weights are not finite: {'; '.join(listed)}.",
            "Use a smaller weight, or look for another file of the adapter.",
        )
    return ConversionError(
        "weights.overflow",
        f"Weights do not fit float16, whose largest number is 65504: {'; '.join(listed)}.",
        details={"submodels": tuple(overflows)},
    )

"""The conversion: graphs, weights, verification, publication, one after the other."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import psutil

from conversions import graphs
from conversions.apart import apart
from conversions.binding import Binding, bind
from conversions.checkpoint import Checkpoint, stored_tensors
from conversions.errors import ConversionError
from conversions.events import Advanced, Finished, Listener, Notice, Started
from conversions.options import Options
from conversions.package import (
    DATA_FILE,
    FORMAT,
    GRAPH_FILE,
    FileRecord,
    Package,
    Staging,
    record,
    reserved,
    write_json,
)
from conversions.passes.to_fp16 import to_fp16
from conversions.placement import check_placement, demand_kernels, picture_sizes
from conversions.plan import ConversionPlan, PlannedComponent, wanted_submodels
from conversions.providers import provider_for
from conversions.storage import Folder
from conversions.submodel import Config, Submodel
from conversions.verify import ParityReport, verify
from conversions.weights import Overflow, stream

# Names in model_index.json that today's libraries no longer know, and what they are called now.
_RENAMED_CLASSES = {"CLIPFeatureExtractor": "CLIPImageProcessor"}

# Side of the picture at whose sizes a target's kernels are looked up; the kernels are the same at all sizes.
_CHECKED_PIXELS = 512

# Peak memory of a process that traces, measured on SDXL's U-Net.
_TRACER_BYTES = 2 << 30

_DISTRIBUTIONS = ("onnx", "onnx-ir", "numpy", "torch", "diffusers", "transformers", "onnxscript")


@dataclass(frozen=True, kw_only=True)
class Checks:
    """How a package is verified before it is published.

    Attributes:
        provider: ONNX Runtime's name of the provider to verify on.
        provider_options: Its options.
    """

    provider: str
    provider_options: Mapping[str, str]


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
        staging = Staging(output, plan.fingerprint)
        staging.begin()
        missing = sum(part.package_bytes for part in plan.components if staging.finished(part.name) is None)
        if missing > free:
            raise ConversionError(
                "package.disk_full",
                f"The package needs {missing / 1e9:.1f} GB in {output.parent}; {free / 1e9:.1f} GB are free.",
                "Free some space, or choose another folder with --output.",
            )
        submodels = wanted_submodels(checkpoint, plan.options)
        todo = [part for part in plan.components if staging.finished(part.name) is None]
        if len(todo) < len(plan.components):
            listener(Notice(text="Going on where an earlier run was interrupted."))
        names = {part.name for part in todo}
        waiting = [submodel for submodel in submodels if submodel.component in names]
        models = _find_graphs(waiting, checkpoint, graph_cache, retrace, listener)
        for part in todo:
            mine = [submodel for submodel in submodels if submodel.component == part.name]
            _make_component(plan, part, mine, checkpoint, models, staging, listener)
        _copy_small_files(checkpoint, staging)
        manifest = _manifest(plan, checkpoint, staging, tool_version)
        package = Package(folder=staging.folder, manifest=manifest)
        report = None
        if checks is not None:
            report = verify(
                package,
                {submodel.name: submodel for submodel in submodels},
                _comparable(checkpoint, listener),
                provider=checks.provider,
                provider_options=checks.provider_options,
                listener=listener,
            )
            if not report.passed:
                staging.discard()
                raise ConversionError(
                    "verify.failed",
                    f"The package is not the same model: {'; '.join(report.all_problems)}. "
                    "It was thrown away.",
                    "Try --precision fp32; if that fails too, please report it.",
                )
            manifest = {**manifest, "parity": _parity(report)}
        return Converted(package=staging.publish(manifest), report=report)


def _comparable(checkpoint: Checkpoint, listener: Listener) -> Checkpoint | None:
    """Return the checkpoint if PyTorch can read it too, which wants it on this machine."""
    if isinstance(checkpoint.storage, Folder):
        return checkpoint
    listener(Notice(text="The checkpoint is not kept here, so no numbers are compared with PyTorch's."))
    return None


def _make_component(
    plan: ConversionPlan,
    part: PlannedComponent,
    submodels: Sequence[Submodel],
    checkpoint: Checkpoint,
    models: Mapping[str, ir.Model],
    staging: Staging,
    listener: Listener,
) -> None:
    """Make the submodels of one component in one pass over its weights."""
    component = checkpoint.components[part.name]
    for submodel in submodels:
        _adapt(models[submodel.name], submodel, component.config, plan.options)
    tensors = stored_tensors(checkpoint.storage, component.weights)
    pairs = [(submodel, models[submodel.name]) for submodel in submodels]
    bindings = bind(part.name, pairs, tensors)
    folders = {name: staging.folder / name for name in bindings}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    total = sum(binding.source.size_bytes for items in bindings.values() for binding in items)
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
        raise _overflow(streamed.overflows)
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
        notes[name] = _describe(submodel, component.config, model, plan.options)
    staging.finish(part.name, files, {"submodels": notes, "sources": dict(streamed.sources)})


def _find_graphs(
    submodels: Sequence[Submodel],
    checkpoint: Checkpoint,
    cache: Path | None,
    retrace: bool,
    listener: Listener,
) -> dict[str, ir.Model]:
    """Find the graphs of all submodels; those that are not at hand are traced side by side."""
    found = {}
    missing = []
    for submodel in submodels:
        config = checkpoint.components[submodel.component].config
        model = None if retrace else graphs.find(submodel, config, cache)
        if model is None:
            missing.append((submodel, config))
        else:
            found[submodel.name] = model
    if not missing:
        return found
    with apart("tracing", workers=_tracers(len(missing))) as processes:
        for submodel, _ in missing:
            listener(Started(task=f"trace {submodel.name}", label=f"{submodel.name}: tracing its graph"))
        traces = [processes.begin(graphs.trace_and_pack, *each) for each in missing]
        for (submodel, config), trace in zip(missing, traces, strict=True):
            packed = trace.result()
            listener(Finished(task=f"trace {submodel.name}"))
            if cache is not None:
                graphs.keep(packed, submodel, config, cache)
            found[submodel.name] = graphs.unpack(packed, submodel, config)
    return found


def _tracers(wanted: int) -> int:
    """Say how many submodels are traced at once: as many as processors and free memory allow."""
    by_memory = int(psutil.virtual_memory().available // _TRACER_BYTES)
    return max(1, min(wanted, os.cpu_count() or 1, by_memory))


def _adapt(model: ir.Model, submodel: Submodel, config: Config, options: Options) -> None:
    """Give a graph the form that the target and the precision want, and check that the target can run it."""
    for name in provider_for(options.target).passes:
        getattr(importlib.import_module(f"conversions.passes.{name}"), name)(model)
    if options.precision_of(submodel.name) == "fp16":
        fixed = {port.name for port in submodel.inputs(config) if port.dtype == "float32"}
        to_fp16(model, fixed=fixed)
    if provider_for(options.target).kernel_table:
        demand_kernels(
            check_placement(
                model,
                options.target,
                picture_sizes(model, width=_CHECKED_PIXELS, height=_CHECKED_PIXELS),
                submodel=submodel.name,
            )
        )


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


def _describe(submodel: Submodel, config: Config, model: ir.Model, options: Options) -> dict[str, Any]:
    def ports(values: Any) -> list[dict[str, Any]]:
        return [{**asdict(port), "shape": list(port.shape)} for port in values]

    return {
        "component": submodel.component,
        "precision": options.precision_of(submodel.name),
        "nodes": len(model.graph),
        "inputs": ports(submodel.inputs(config)),
        "outputs": ports(submodel.outputs(config)),
    }


def _copy_small_files(checkpoint: Checkpoint, staging: Staging) -> None:
    """Copy tokenizer, scheduler and the like, and write the package's own model_index.json."""
    files = {}
    for name in checkpoint.storage.names():
        if name.split("/")[0] in checkpoint.family.copied and "/" in name:
            target = staging.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(checkpoint.storage.read(name))
            files[name] = record(target)
    made = {submodel.component for submodel in checkpoint.family.submodels}
    present = {name.split("/")[0] for name in staging.files()}
    index: dict[str, Any] = {}
    for name, entry in checkpoint.index.items():
        if name in made:
            index[name] = [None, None]
        elif isinstance(entry, list):
            index[name] = [_RENAMED_CLASSES.get(part, part) for part in entry]
        else:
            index[name] = entry
    index.pop("vae", None)
    for submodel in checkpoint.family.submodels:
        if submodel.name in present:
            index[submodel.name] = ["diffusers", "OnnxRuntimeModel"]
    write_json(staging.folder / "model_index.json", index)
    files["model_index.json"] = record(staging.folder / "model_index.json")
    staging.finish("", files, {"submodels": {}, "sources": {}})


def _manifest(
    plan: ConversionPlan, checkpoint: Checkpoint, staging: Staging, tool_version: str
) -> dict[str, Any]:
    submodels: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for part in plan.components:
        notes = staging.finished(part.name)
        assert notes is not None
        submodels |= notes["submodels"]
        sources |= notes["sources"]
    return {
        "format": FORMAT,
        "tool": {"sdsetup": tool_version, **_versions()},
        "checkpoint": {"origin": plan.origin, "commit": plan.commit, "sha256": dict(sorted(sources.items()))},
        "family": plan.family,
        "pipeline": checkpoint.index.get("_class_name"),
        "precision": plan.options.precision,
        "target": plan.options.target,
        "opset": plan.opset,
        "submodels": submodels,
        "files": {name: vars(entry) for name, entry in sorted(staging.files().items())},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _parity(report: ParityReport) -> dict[str, Any]:
    """Return what of a report goes into the manifest: numbers that a second run gives again."""
    document = report.document()
    return {
        "provider": report.provider,
        "submodels": {
            each["submodel"]: None
            if each["parity"] is None
            else {
                name: None if value is None else float(f"{value:.3g}")
                for name, value in each["parity"].items()
            }
            for each in document["submodels"]
        },
    }


def _overflow(overflows: Mapping[str, Sequence[Overflow]]) -> ConversionError:
    listed = [
        f"{name}: {found[0].initializer} (largest {found[0].largest:.6g})"
        + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        for name, found in overflows.items()
    ]
    keep = " ".join(f"--keep-fp32 {name}" for name in overflows)
    return ConversionError(
        "weights.overflow",
        f"Weights do not fit float16, whose largest number is 65504: {'; '.join(listed)}.",
        f"Add {keep} to keep that much in float32, or use --precision fp32.",
    )

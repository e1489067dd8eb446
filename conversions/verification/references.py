"""Compute what submodels are compared with: by PyTorch, or without it by an evaluation of their graphs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from conversions.checkpoint.folder import Checkpoint, Component, component_tensors
from conversions.errors import ConversionError
from conversions.events import Finished, Listener, Started
from conversions.family import Submodel
from conversions.isolated_process import isolated_process
from conversions.verification import float32_graph
from conversions.verification.layerwise import kept_type
from conversions.verification.reference import (
    Arrays,
    ExpressionWeights,
    FolderWeights,
    Reference,
    ReferenceWeights,
    run_reference,
)

ReferenceKind = Literal["pytorch", "float32_graph"]

NAMES: Mapping[ReferenceKind, str] = {
    "pytorch": "PyTorch",
    "float32_graph": "the float32 evaluation of its graph",
}
"""What each reference is called in messages."""


def pytorch_is_installed() -> bool:
    """Whether PyTorch can compute references: torch, diffusers and transformers are there."""
    return all(find_spec(name) is not None for name in ("torch", "diffusers", "transformers"))


def default_reference() -> ReferenceKind:
    """Return PyTorch where it is installed, else the evaluation of graphs."""
    return "pytorch" if pytorch_is_installed() else "float32_graph"


def demand_installed(kind: ReferenceKind) -> None:
    """See that what computes references is installed.

    Raises:
        ConversionError: ``verify.no_pytorch``.
    """
    if kind == "pytorch" and not pytorch_is_installed():
        raise ConversionError(
            "verify.no_pytorch",
            "Comparing with PyTorch needs torch, diffusers and transformers, which are not all installed.",
        )


def run_references(
    submodels: Mapping[str, Submodel],
    checkpoint: Checkpoint,
    inputs: Mapping[str, Arrays],
    quantized: Mapping[str, Mapping[str, str]],
    listener: Listener,
    *,
    kind: ReferenceKind = "pytorch",
    graph_cache: Path | None = None,
) -> dict[str, Reference]:
    """Compute the reference of every submodel, one after the other in a child process.

    Args:
        submodels: By name.
        checkpoint: Their weights.
        inputs: As ``make_inputs`` gives them, for each submodel.
        quantized: Precisions of the weights that are quantised in the package, by submodel and name.
        listener: Told of the progress.
        kind: What computes them.
        graph_cache: Folder of this user's traced graphs.

    Raises:
        ConversionError: ``verify.no_pytorch``: PyTorch is not installed. ``verify.no_graph``: there is no
            graph to evaluate. The checkpoint is not on this machine, or the process died.
    """
    demand_installed(kind)
    results = {}
    with isolated_process("PyTorch" if kind == "pytorch" else "evaluating graphs") as process:
        for name, submodel in submodels.items():
            component = checkpoint.components[submodel.component]
            task = f"reference {name}"
            what = "PyTorch reference" if kind == "pytorch" else "evaluating in float32"
            listener(Started(task=task, label=f"{name}: {what}"))
            if kind == "pytorch":
                weights = weights_of(checkpoint, component)
                given = (component.config, weights, inputs[name], quantized[name])
                results[name] = process.call(run_reference, submodel.kind, *given)
            else:
                stored = expressions_of(checkpoint, component)
                results[name] = process.call(
                    float32_graph.evaluate,
                    submodel.kind,
                    component.config,
                    stored,
                    inputs[name],
                    quantized[name],
                    graph_cache,
                )
            listener(Finished(task=task))
    return results


def weights_of(checkpoint: Checkpoint, component: Component) -> ReferenceWeights:
    """Return where PyTorch finds a component's weights.

    Raises:
        ConversionError: ``verify.remote``; they are not on this machine.
    """
    storage = checkpoint.storage
    paths = _paths(checkpoint)
    config = paths.get(f"{component.name}/config.json")
    beside = {paths[name].parent for name in component.weights.names if name in paths}
    narrow = kept_type(component_tensors(storage, component)) != "float32"
    if not (component.transforms or narrow) and config is not None and beside == {config.parent}:
        return FolderWeights(folder=config.parent, files=component.weights)
    return expressions_of(checkpoint, component)


def expressions_of(checkpoint: Checkpoint, component: Component) -> ExpressionWeights:
    """Return a component's weights as expressions over the checkpoint's files.

    Raises:
        ConversionError: ``verify.remote``; they are not on this machine.
    """
    tensors = component_tensors(checkpoint.storage, component)
    paths = _paths(checkpoint)
    if not {tensor.file for each in tensors.values() for tensor in each.stored} <= set(paths):
        raise ConversionError(
            "verify.remote", "Numbers can only be compared with a checkpoint on this machine."
        )
    return ExpressionWeights(tensors=tensors, paths=paths, dtype=kept_type(tensors))


def _paths(checkpoint: Checkpoint) -> dict[str, Path]:
    storage = checkpoint.storage
    return {name: path for name in storage.names() if (path := storage.path_of(name)) is not None}

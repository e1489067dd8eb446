"""What a conversion will do, known before the first byte moves: printable, comparable, with its needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from conversions import graphs
from conversions.checkpoint.folder import Checkpoint, Component, component_tensors
from conversions.errors import ConversionError
from conversions.family import Submodel
from conversions.graphs.trace import OPSET
from conversions.options import Options
from conversions.passes.adapt import adapt
from conversions.pipeline_graphs import PipelineGraphs
from conversions.providers.table import provider_for
from conversions.tokenizers.registry import open_tokenizer_of, tokens_without_embedding
from conversions.verification.layerwise import kept_type
from conversions.weights.binding import ELEMENT_TYPES_OF, as_stored, bind
from conversions.weights.expression import Tensors
from conversions.weights.link import linkable_files
from conversions.weights.lora.transform import MergedAdapter, merged_adapters
from conversions.weights.quantize import BITS
from conversions.weights.with_embeddings import LearnedEmbedding, learned_embeddings

# Peak memory beyond the data itself, measured on a full-size SD 1.4 checkpoint (tests/benchmarks/convert.py).
_STREAMING_BYTES = 900 << 20
_CHECKING_BYTES = 1600 << 20


@dataclass(frozen=True, kw_only=True)
class PlannedComponent:
    """One component and the submodels that it becomes.

    Attributes:
        name: Folder of the component in the checkpoint.
        submodels: The submodels made of it, each with where its graph comes from.
        files: Its weight files.
        source_bytes: Size of its tensors in the checkpoint.
        package_bytes: Size of its tensors in the package, at most.
        copied_bytes: How much of that is written where the checkpoint's files can be linked, at most.
    """

    name: str
    submodels: Mapping[str, graphs.Origin]
    files: tuple[str, ...]
    source_bytes: int
    package_bytes: int
    copied_bytes: int


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """What a conversion will do.

    Attributes:
        origin: The checkpoint's repository or folder name.
        commit: Its commit, or empty.
        family: Kind of pipeline.
        options: The caller's choices.
        opset: Version of the ONNX operators.
        components: What is converted, in the order of work.
        adapters: What is merged into the weights: name, weight and hash of each.
        embeddings: Textual inversion that the package knows: name, token, vectors and hash of each.
        ram_bytes: Peak memory that the stream needs.
        check_ram_bytes: Peak memory that verification needs.
        fingerprint: Equal for two plans that make the same package of the same bytes.
    """

    origin: str
    commit: str
    family: str
    options: Options
    opset: int
    components: tuple[PlannedComponent, ...]
    adapters: tuple[MergedAdapter, ...]
    embeddings: tuple[LearnedEmbedding, ...]
    ram_bytes: int
    check_ram_bytes: int
    fingerprint: str

    @property
    def source_bytes(self) -> int:
        """Bytes to read."""
        return sum(component.source_bytes for component in self.components)

    @property
    def package_bytes(self) -> int:
        """Size of the package's weights."""
        return sum(component.package_bytes for component in self.components)

    @property
    def copied_bytes(self) -> int:
        """Bytes to write where the checkpoint's files can be linked: on one volume, if it has links."""
        return sum(component.copied_bytes for component in self.components)

    @property
    def submodels(self) -> tuple[str, ...]:
        """The submodels, in the order of work."""
        return tuple(name for component in self.components for name in component.submodels)

    @property
    def to_trace(self) -> tuple[str, ...]:
        """The submodels whose graph is not at hand."""
        origins = ((name, origin) for part in self.components for name, origin in part.submodels.items())
        return tuple(name for name, origin in origins if origin == "to trace")

    def document(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON."""
        content = asdict(self)
        totals = {
            "source_bytes": self.source_bytes,
            "package_bytes": self.package_bytes,
            "copied_bytes": self.copied_bytes,
        }
        return {**content, **totals}


def _demand_embeddings(checkpoint: Checkpoint) -> None:
    """Open the tokenizers, and see that the text encoders have an embedding for each token that was added.

    Raises:
        ConversionError: A tokenizer cannot be used, or ``tokenizer.no_embedding``.
    """
    family = checkpoint.family
    encoders = dict.fromkeys(part.component for part in family.parts if part.role == "text")
    readers = dict(zip(family.tokenizers, encoders, strict=False))
    for name in checkpoint.tokenizers:
        tokenizer = open_tokenizer_of(checkpoint.storage, name)
        encoder = checkpoint.components.get(readers.get(name, ""))
        rows = encoder.config.get("vocab_size") if encoder is not None else None
        if not isinstance(rows, int):
            continue
        if lacking := tokens_without_embedding(tokenizer, rows):
            raise ConversionError(
                "tokenizer.no_embedding",
                f"{name} has the added token {lacking[0]}, for which the text encoder has no embedding: it "
                f"has {rows:,}.",
                "Take the token out of the tokenizer's files, or the text encoder that was saved with it.",
            )


def make_plan(checkpoint: Checkpoint, options: Options, graph_cache: Path | None) -> ConversionPlan:
    """Plan a conversion from configurations and tensor tables alone.

    Raises:
        ConversionError: A weight file is damaged, weights do not fit a graph that is at hand, a tokenizer
            cannot be used, or an option names a submodel that does not exist.
    """
    if reason := checkpoint.recipe.unsupported:
        raise ConversionError(
            "component.unsupported",
            reason,
            "Convert a checkpoint of a supported pipeline; if it is one, download its config files again.",
        )
    _demand_embeddings(checkpoint)
    submodels = wanted_submodels(checkpoint, options)
    unknown = set(options.precisions) - {submodel.name for submodel in submodels}
    if unknown:
        raise ConversionError(
            "plan.unknown_submodel",
            f"There is no submodel {', '.join(sorted(unknown))} in this checkpoint.",
            f"Its submodels are {', '.join(submodel.name for submodel in submodels)}.",
        )
    components = []
    reference_bytes = []
    for name in dict.fromkeys(submodel.component for submodel in submodels):
        component = checkpoint.components[name]
        mine = [submodel for submodel in submodels if submodel.component == name]
        tensors = component_tensors(checkpoint.storage, component)
        _demand_weights(component, mine, tensors, graph_cache)
        links = linkable(checkpoint, tensors, options, mine)
        dtypes = _element_types(options, mine)
        elements = sum(tensor.size for tensor in tensors.values())
        reference_bytes.append(elements * (4 if kept_type(tensors) == "float32" else 2))
        width = max(2 if options.is_fp16(submodel) else 4 for submodel in mine)
        components.append(
            PlannedComponent(
                name=name,
                submodels={
                    each.name: graphs.locate(each.kind, component.config, graph_cache) for each in mine
                },
                files=component.weights.files,
                source_bytes=sum(tensor.stored_bytes for tensor in tensors.values()),
                package_bytes=elements * width,
                copied_bytes=sum(
                    tensor.size * width
                    for weight, tensor in tensors.items()
                    if (stored := as_stored(tensor, dtypes)) is None
                    or len(dtypes) > 1  # which submodel reads it is not known before there are graphs
                    or stored.file not in links
                    or mine[0].kind.scale_of(weight) != 1
                ),
            )
        )
    transforms = [each for part in checkpoint.components.values() for each in part.transforms]
    return ConversionPlan(
        origin=checkpoint.origin,
        commit=checkpoint.commit,
        family=checkpoint.family.name,
        options=options,
        opset=OPSET,
        components=tuple(components),
        adapters=merged_adapters(transforms),
        embeddings=learned_embeddings(transforms),
        ram_bytes=_STREAMING_BYTES,
        check_ram_bytes=max(reference_bytes) + _CHECKING_BYTES,
        fingerprint=_fingerprint(checkpoint, options, submodels),
    )


def _demand_weights(
    component: Component, submodels: Sequence[Submodel], tensors: Tensors, graph_cache: Path | None
) -> None:
    """See that a component has the weights of those of its graphs that are at hand.

    Raises:
        ConversionError: ``weights.missing``, ``weights.shape`` or ``weights.ambiguous``.
    """
    found = [(each, graphs.find(each.kind, component.config, graph_cache)) for each in submodels]
    if models := [(each, model) for each, model in found if model is not None]:
        bind(component.name, models, tensors)


def wanted_submodels(checkpoint: Checkpoint, options: Options) -> list[Submodel]:
    """Return the submodels that a checkpoint has and the caller wants, in the family's order."""
    return [
        submodel for submodel in checkpoint.submodels if options.safety_checker or submodel.role != "safety"
    ]


def planned_graphs(
    checkpoint: Checkpoint, options: Options, graph_cache: Path | None
) -> PipelineGraphs | None:
    """Return the graphs of a conversion in the form that its target and precision want, without weights.

    Args:
        checkpoint: Its configurations alone are read.
        options: Name the target and the precision.
        graph_cache: Folder of this user's traced graphs; None keeps none.

    Returns:
        The graphs; None while one is still to be traced.

    Raises:
        ConversionError: ``placement.no_kernel``; the target has no kernel for a node.
    """
    models = {}
    for submodel in wanted_submodels(checkpoint, options):
        config = checkpoint.config_of(submodel)
        model = graphs.find(submodel.kind, config, graph_cache)
        if model is None:
            return None
        adapt(
            model, submodel, config, options, checkpoint.recipe.sizes(submodel.role, checkpoint.recipe.native)
        )
        models[submodel.name] = model
    return PipelineGraphs(
        models=models,
        roles={each.name: each.role for each in checkpoint.submodels},
        recipe=checkpoint.recipe,
        provider=provider_for(options.target),
    )


def linkable(
    checkpoint: Checkpoint, tensors: Tensors, options: Options, submodels: Sequence[Submodel]
) -> set[str]:
    """Return the checkpoint's files that a package can use as they are; none for quantised submodels.

    Args:
        checkpoint: Its files.
        tensors: The weights of one component.
        options: Of the conversion.
        submodels: What is made of the component.
    """
    if options.copy or any(options.precision_of(submodel) in BITS for submodel in submodels):
        return set()
    return linkable_files(checkpoint.storage, tensors.values(), _element_types(options, submodels))


def _element_types(options: Options, submodels: Sequence[Submodel]) -> set[ir.DataType]:
    names = ("fp16" if options.is_fp16(submodel) else "fp32" for submodel in submodels)
    return {ELEMENT_TYPES_OF[name] for name in names}


def _fingerprint(checkpoint: Checkpoint, options: Options, submodels: list[Submodel]) -> str:
    storage = checkpoint.storage
    parts: list[object] = [
        checkpoint.commit,
        OPSET,
        options.precision,
        options.target,
        options.scheduler_class,
        sorted(options.precisions.items()),
        options.copy,
        dict(checkpoint.index),
        dict(checkpoint.scheduler),
    ]
    for submodel in submodels:
        component = checkpoint.components[submodel.component]
        parts += [submodel.name, graphs.fingerprint(submodel.kind, component.config)]
        parts += [[name, storage.version(name)] for name in component.weights.files]
        parts += [repr(transform) for transform in component.transforms]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

"""What a checkpoint or a package is, told from its small files and tables of tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from conversions.checkpoint.folder import Checkpoint, component_tensors
from conversions.family import class_of_component
from conversions.package.layout import Package
from conversions.package.needs import weight_bytes
from conversions.recipe import Recipe
from conversions.weights.lora.transform import MergedAdapter
from conversions.weights.with_embeddings import LearnedEmbedding


@dataclass(frozen=True, kw_only=True)
class InspectedSubmodel:
    """One submodel.

    Attributes:
        name: Its folder in a package.
        component: The checkpoint's component that it is made from.
        class_name: The component's class.
        parameters: Number of weights; all of them where two submodels share a component. None in a package.
        types: Element types of the weights, the most frequent first; of a package its precision.
        size_bytes: Of the stored weights.
    """

    name: str
    component: str
    class_name: str
    parameters: int | None
    types: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a checkpoint or a package is.

    Attributes:
        what: ``"checkpoint"`` or ``"package"``.
        origin: The repository or folder that the weights come from.
        family: Name for people.
        pipeline: ``_class_name`` of its ``model_index.json``.
        tasks: What images can be made from.
        width: Of the images that it was trained on, in pixels.
        height: Of the same images.
        scheduler: Class of its scheduler; empty where it has none.
        prediction_type: What its denoiser predicts.
        steps: Scheduler steps that are usual for it.
        guidance_scale: Guidance that is usual for it.
        submodels: In the order of work.
        missing: Optional parts that it lacks.
        adapters: What is merged into its weights: name, weight and hash of each.
        embeddings: Textual inversion that it knows: name, token, vectors and hash of each.
    """

    what: str
    origin: str
    family: str
    pipeline: str
    tasks: tuple[str, ...]
    width: int
    height: int
    scheduler: str
    prediction_type: str
    steps: int
    guidance_scale: float
    submodels: tuple[InspectedSubmodel, ...]
    missing: tuple[str, ...]
    adapters: tuple[MergedAdapter, ...] = ()
    embeddings: tuple[LearnedEmbedding, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return asdict(self)


def inspect_checkpoint(checkpoint: Checkpoint) -> Inspection:
    """Tell what a checkpoint is.

    Raises:
        ConversionError: A weight file is damaged.
    """
    submodels = []
    for submodel in checkpoint.submodels:
        component = checkpoint.components[submodel.component]
        types: Counter[str] = Counter()
        parameters = size_bytes = 0
        if component.weights.format == "safetensors":
            for tensor in component_tensors(checkpoint.storage, component).values():
                types[tensor.dtype] += tensor.size
                size_bytes += tensor.stored_bytes
            parameters = types.total()
        submodels.append(
            InspectedSubmodel(
                name=submodel.name,
                component=submodel.component,
                class_name=class_of_component(checkpoint.configs, submodel.component),
                parameters=parameters or None,
                types=tuple(name for name, _ in types.most_common()) or ("pickle",),
                size_bytes=size_bytes,
            )
        )
    present = {submodel.name for submodel in checkpoint.submodels}
    return _inspection(
        "checkpoint",
        checkpoint.origin,
        checkpoint.family.title,
        checkpoint.index,
        checkpoint.recipe,
        tuple(submodels),
        tuple(part.name for part in checkpoint.family.parts if part.name not in present),
    )


def inspect_package(package: Package) -> Inspection:
    """Tell what a package is.

    Raises:
        ConversionError: A small file cannot be read.
    """
    adapters = tuple(MergedAdapter(**entry) for entry in package.manifest.get("adapters", ()))
    embeddings = tuple(LearnedEmbedding(**entry) for entry in package.manifest.get("embeddings", ()))
    submodels = tuple(
        InspectedSubmodel(
            name=submodel.name,
            component=submodel.component,
            class_name=submodel.kind.class_name,
            parameters=None,
            types=(package.precision(submodel.name),),
            size_bytes=weight_bytes(package, submodel.name),
        )
        for submodel in package.submodels
    )
    return _inspection(
        "package",
        package.origin,
        package.family.title,
        package.configs.index,
        package.recipe,
        submodels,
        tuple(part.name for part in package.family.parts if part.name not in package.submodel_names),
        adapters,
        embeddings,
    )


def _inspection(
    what: str,
    origin: str,
    family: str,
    index: Mapping[str, Any],
    recipe: Recipe,
    submodels: tuple[InspectedSubmodel, ...],
    missing: tuple[str, ...],
    adapters: tuple[MergedAdapter, ...] = (),
    embeddings: tuple[LearnedEmbedding, ...] = (),
) -> Inspection:
    scheduler, defaults = recipe.scheduler_config, recipe.defaults
    return Inspection(
        what=what,
        origin=origin,
        family=family,
        pipeline=str(index.get("_class_name", "")),
        tasks=tuple(sorted(recipe.tasks)),
        width=defaults.width,
        height=defaults.height,
        scheduler=str(scheduler.get("_class_name", "")),
        prediction_type=(
            str(scheduler.get("prediction_type") or "epsilon")
            if recipe.noise_levels(defaults.steps, recipe.native) is None
            else "flow"
        ),
        steps=defaults.steps,
        guidance_scale=defaults.guidance_scale,
        submodels=submodels,
        missing=missing,
        adapters=adapters,
        embeddings=embeddings,
    )

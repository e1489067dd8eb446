"""A package read as a checkpoint, so that a conversion can take from it what a single file lacks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from conversions.checkpoint.folder import Checkpoint, Component, assemble
from conversions.checkpoint.storage import Folder
from conversions.checkpoint.weight_files import WeightFiles
from conversions.errors import ConversionError
from conversions.family import Submodel, class_of_component
from conversions.package.layout import GRAPH_FILE, Package, torn
from conversions.weights.expression import Expression, Scale, Tensors
from conversions.weights.graph_weights import as_in_pytorch, graph_weights


@dataclass(frozen=True, kw_only=True)
class AsInPyTorch:
    """Makes the weights of a component of what its graphs store.

    Attributes:
        component: Its name, for messages.
        transposed: Matrices that are stored as ``[in, out]``.
        scales: What weights are stored multiplied with, by name.
        quantized: Its precision of 4 or 8 bits, of which no weights can be made; else empty.
    """

    component: str
    transposed: tuple[str, ...] = ()
    scales: tuple[tuple[str, float], ...] = ()
    quantized: str = ""

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the weights.

        Raises:
            ConversionError: ``package.quantized``.
        """
        if self.quantized:
            raise ConversionError(
                "package.quantized",
                f"The package keeps the weights of {self.component!r} in {self.quantized}, of which no other "
                "package can be made.",
                "Take a package of 16 or 32 bits, or the checkpoint.",
            )
        scales = dict(self.scales)

        def restored(name: str, stored: Expression) -> Expression:
            weight = as_in_pytorch(stored, transposed=name in self.transposed)
            return Scale(of=weight, factor=1 / scales[name]) if name in scales else weight

        return {name: restored(name, stored) for name, stored in tensors.items()}


def package_as_checkpoint(package: Package, *, without: Collection[str] = ()) -> Checkpoint:
    """Read a package as the checkpoint that it was made of, its weights rounded to what it stores.

    Args:
        package: Its graphs and small files are read.
        without: Components to leave out.

    Raises:
        ConversionError: ``package.torn``; a file is missing or of another size.
    """
    for name, expected in package.files.items():
        path = package.folder / name
        if not path.is_file():
            raise torn(package.folder, f"{name} is missing")
        small = name.endswith(".json")
        if not small and path.stat().st_size != expected.size_bytes:
            raise torn(package.folder, f"{name} has another size than its manifest says")
    made: dict[str, list[Submodel]] = {}
    for submodel in package.submodels:
        if submodel.component not in without:
            made.setdefault(submodel.component, []).append(submodel)
    components = {name: _component(package, name, submodels) for name, submodels in made.items()}
    index = {
        name: entry
        for name, entry in package.config("", "model_index.json").items()
        if name not in package.submodel_names and name not in package.family.components
    }
    index |= {name: [None, None] for name in package.family.components if name not in components}
    index |= {
        name: [
            "diffusers" if "_class_name" in each.config else "transformers",
            class_of_component(package.configs, name) or made[name][0].kind.class_name,
        ]
        for name, each in components.items()
    }
    return assemble(
        Folder(package.folder),
        package.family,
        index,
        components,
        package.configs.scheduler,
        origin=package.name,
    )


def _component(package: Package, name: str, submodels: list[Submodel]) -> Component:
    weights = {
        key: weight
        for submodel in submodels
        for key, weight in graph_weights(package.graph(submodel.name)).items()
    }
    kind = submodels[0].kind
    transform = AsInPyTorch(
        component=name,
        transposed=tuple(key for key, weight in weights.items() if weight.transposed),
        scales=tuple((key, factor) for key in weights if (factor := kind.scale_of(key)) != 1),
        quantized=next((found for each in submodels if (found := _bits(package, each.name))), ""),
    )
    return Component(
        name=name,
        config=package.configs.components[name],
        weights=WeightFiles(
            files=tuple(f"{submodel.name}/{GRAPH_FILE}" for submodel in submodels),
            index=None,
            format="safetensors",
            variant="",
        ),
        transforms=(transform,),
    )


def _bits(package: Package, submodel: str) -> str:
    precision = package.precision(submodel)
    return "" if precision in ("fp16", "fp32") else precision

"""The graphs of a pipeline's submodels and their sizes for an image, for forecasts and placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.package.layout import Package
from conversions.passes.slice_attention import slice_attention
from conversions.providers.table import Provider, provider_for
from conversions.recipe import ImageSize, Recipe
from conversions.shape_inference import fix_sizes, infer_shapes


@dataclass(frozen=True, kw_only=True)
class PipelineGraphs:
    """A pipeline's graphs.

    Attributes:
        models: The graphs by the submodels' names; weights may have no values.
        roles: What each submodel does when an image is made.
        recipe: Knows the sizes of the submodels' inputs.
        provider: Whose sessions run the graphs.
    """

    models: Mapping[str, ir.Model]
    roles: Mapping[str, str]
    recipe: Recipe
    provider: Provider

    def sizes(self, submodel: str, size: ImageSize) -> dict[str, int]:
        """Return the size of each free dimension of a submodel's inputs for a batch of images."""
        known = self.recipe.sizes(self.roles[submodel], size)
        wanted = {
            str(dim.value)
            for value in self.models[submodel].graph.inputs
            for dim in (value.shape or ())
            if isinstance(dim, ir.SymbolicDim)
        }
        return {name: known[name] for name in known if name in wanted}

    def at(self, submodel: str, size: ImageSize) -> ir.Model:
        """Return a copy of a submodel's graph at the sizes of a batch of images, as a session runs it.

        Raises:
            ConversionError: The size is one that the graph cannot take.
        """
        fixed = fix_sizes(self.models[submodel], self.sizes(submodel, size))
        if self.provider.stores_scores and slice_attention(fixed, None):
            infer_shapes(fixed)
        return fixed

    def run_by(self, provider: Provider) -> PipelineGraphs:
        """Return the same graphs for another provider."""
        return replace(self, provider=provider)


def package_graphs(package: Package) -> PipelineGraphs:
    """Read the graphs of a package's submodels, for the provider that it was converted for.

    Weights stay on disk.

    Raises:
        ConversionError: ``package.torn``; a graph is missing or cannot be read.
    """
    models = {}
    for submodel in package.submodels:
        path = package.graph(submodel.name)
        if not path.is_file():
            raise ConversionError(
                "package.torn",
                f"The package {package.folder} has no {submodel.name}/{path.name}.",
                "Convert again.",
            )
        models[submodel.name] = ir.load(path)
    return PipelineGraphs(
        models=models,
        roles={each.name: each.role for each in package.submodels},
        recipe=package.recipe,
        provider=provider_for(package.target),
    )

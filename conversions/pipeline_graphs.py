"""The graphs of a pipeline's submodels and their sizes for an image, for forecasts and placement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.package.layout import Package
from conversions.passes.slice_attention import slice_attention
from conversions.passes.winograd_convolution import winograd_convolution
from conversions.providers.table import Provider, provider_for
from conversions.recipe import ImageSize, Recipe
from conversions.shape_inference import fix_sizes, infer_shapes
from conversions.tiling.cut import Cut, cut
from conversions.tiling.sizes import first_size, kept_bytes, window_sizes


@dataclass(frozen=True, kw_only=True)
class SizedGraph:
    """A graph that one session runs, and the sizes of the dimensions of its inputs.

    Attributes:
        model: The graph; weights may have no values.
        sizes: By the dimensions' names.
        provider: Whose session runs it.
    """

    model: ir.Model
    sizes: Mapping[str, int]
    provider: Provider

    def fixed(self) -> ir.Model:
        """Return a copy at these sizes, as a session runs it.

        Raises:
            ConversionError: The graph cannot take these sizes.
        """
        fixed, provider = fix_sizes(self.model, self.sizes), self.provider
        changes = slice_attention(fixed, None) if provider.stores_scores else 0
        if (winograd := provider.winograd) is not None:
            changes += winograd_convolution(fixed, None, winograd.least_pixels, in_turns=winograd.in_turns)
        if changes:
            infer_shapes(fixed)
        return fixed


@dataclass(frozen=True, kw_only=True)
class SizedParts:
    """What a submodel's sessions run one after the other.

    Attributes:
        graphs: The whole graph, or its parts.
        kept_bytes: Main memory for the results between parts, in bytes.
    """

    graphs: tuple[SizedGraph, ...]
    kept_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class PipelineGraphs:
    """A pipeline's graphs.

    Attributes:
        models: The graphs by the submodels' names; weights may have no values.
        roles: What each submodel does when an image is made.
        recipe: Knows the sizes of the submodels' inputs.
        provider: Whose sessions run the graphs.
        tiles: Submodels that run in tiles, and the side of a tile in pixels of the image.
        cuts: Those that were cut before, so that it is done once for all sides.
    """

    models: Mapping[str, ir.Model]
    roles: Mapping[str, str]
    recipe: Recipe
    provider: Provider
    tiles: Mapping[str, int] = field(default_factory=dict)
    cuts: Mapping[str, Cut] = field(default_factory=dict)

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
        return self._whole(submodel, size).fixed()

    def parts(self, submodel: str, size: ImageSize) -> SizedParts:
        """Return what a submodel's sessions run one after the other: the graph, or its parts.

        Raises:
            ConversionError: It is to run in tiles and cannot.
        """
        whole = self._whole(submodel, size)
        if submodel not in self.tiles:
            return SizedParts(graphs=(whole,))
        parts = self.cuts.get(submodel) or cut(whole.model)
        first = first_size(parts, whole.sizes)
        side = self.tiles[submodel]
        found = [] if parts.head is None else [replace(whole, model=parts.head)]
        found += [
            replace(whole, model=piece.model, sizes=window_sizes(parts, piece, first, side))
            for piece in parts.pieces
        ]
        if parts.foot is not None:
            names = ("batch", "height_1", "width_1")
            found.append(replace(whole, model=parts.foot, sizes=dict(zip(names, first, strict=True))))
        return SizedParts(graphs=tuple(found), kept_bytes=kept_bytes(parts, first))

    def _whole(self, submodel: str, size: ImageSize) -> SizedGraph:
        return SizedGraph(
            model=self.models[submodel], sizes=self.sizes(submodel, size), provider=self.provider
        )

    def run_by(self, provider: Provider) -> PipelineGraphs:
        """Return the same graphs for another provider."""
        return replace(self, provider=provider)

    def without(self, submodels: Set[str]) -> PipelineGraphs:
        """Return the graphs of the other submodels."""
        return replace(
            self, models={name: model for name, model in self.models.items() if name not in submodels}
        )

    def only(self, submodels: Collection[str]) -> PipelineGraphs:
        """Return the graphs of these submodels."""
        return self.without(set(self.models) - set(submodels))

    def in_tiles(self, tiles: Mapping[str, int], cuts: Mapping[str, Cut] | None = None) -> PipelineGraphs:
        """Return the same graphs, some of which run in tiles.

        Args:
            tiles: Their names, and the side of a tile in pixels of the image.
            cuts: Those of them that were cut before.
        """
        return replace(self, tiles=tiles, cuts=cuts or {})


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

"""Shipped graphs as submodels of their families, with the sizes of an image."""

from __future__ import annotations

from conversions.family import Family, PipelineConfigs, ShippedGraph, Submodel, all_families
from conversions.recipe import ImageSize

SHIPPED = [(family, shipped) for family in all_families() for shipped in family.shipped]
LABELS = [f"{shipped.label}: {shipped.kind.id}" for _, shipped in SHIPPED]


def submodel_of(family: Family, shipped: ShippedGraph) -> Submodel:
    """Return the submodel that a shipped graph is."""
    part = next(part for part in family.parts if shipped.kind in part.kinds)
    return Submodel(name=part.name, component=part.component, kind=shipped.kind, role=part.role)


def sizes_of(family: Family, shipped: ShippedGraph, side: int) -> dict[str, int]:
    """Return the sizes of a shipped graph's free dimensions for one square image of full-size models."""
    submodel = submodel_of(family, shipped)
    configs = PipelineConfigs(index={}, components={submodel.component: shipped.config}, scheduler={})
    sizes = family.recipe(configs).sizes(submodel.role, ImageSize(width=side, height=side))
    free = {size for spec in shipped.kind.inputs(shipped.config) for size in spec.shape}
    return {name: size for name, size in sizes.items() if name in free}

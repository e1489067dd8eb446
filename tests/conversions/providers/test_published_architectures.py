"""DirectML takes the published architectures whole: the shipped graphs, at their true configurations."""

from __future__ import annotations

from collections import Counter

import pytest

from conversions.family import Family, ShippedGraph
from conversions.graphs import find
from conversions.options import Options
from conversions.passes.adapt import adapt
from conversions.providers.ep_partition import check_placement
from tests.shipped import LABELS, SHIPPED, sizes_of, submodel_of

# A text encoder's sizes are those of the prompt, whatever the image's are.
CASES = [
    pytest.param(family, shipped, side, id=f"{label}-{side}")
    for (family, shipped), label in zip(SHIPPED, LABELS, strict=True)
    for side in (512, 768, 1024)
    if side == 512 or sizes_of(family, shipped, side) != sizes_of(family, shipped, 512)
]


@pytest.mark.parametrize(("family", "shipped", "side"), CASES)
def test_a_published_submodel_is_one_fused_graph(family: Family, shipped: ShippedGraph, side: int) -> None:
    model = find(shipped.kind, shipped.config, None)
    assert model is not None
    sizes = sizes_of(family, shipped, side)
    options = Options(precision="fp16", target="directml")
    adapt(model, submodel_of(family, shipped), shipped.config, options, sizes)

    report = check_placement(model, "directml", sizes)

    assert report.whole
    assert report.covered_share == 1.0
    assert report.shape_nodes == report.computed_shapes == 0
    if shipped.label == "Stable Diffusion 1.x" and shipped.kind.id == "unet":
        operators = Counter(node.operator for node in report.nodes)
        assert len(report.nodes) <= 800
        assert operators["com.microsoft.MultiHeadAttention"] == 32
        assert operators["com.microsoft.GroupNorm"] == 61

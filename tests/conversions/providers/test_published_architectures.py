"""DirectML takes the published architectures whole: the shipped graphs, at their true configurations."""

from __future__ import annotations

from collections import Counter

import pytest

from conversions.conversion import adapt
from conversions.graphs import find
from conversions.graphs.architectures import SHIPPED
from conversions.options import Options
from conversions.providers.ep_partition import check_placement, image_sizes


@pytest.mark.parametrize("side", [512, 768])
@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: f"{entry[0]} {entry[1].name}")
def test_a_published_submodel_is_one_fused_graph(entry: tuple, side: int) -> None:
    family, submodel, config = entry
    model = find(submodel, config, None)
    assert model is not None
    adapt(model, submodel, config, Options(precision="fp16", target="directml"))

    report = check_placement(model, "directml", image_sizes(model, width=side, height=side))

    assert report.whole
    assert report.covered_share == 1.0
    assert report.shape_nodes == report.computed_shapes == 0
    if family == "Stable Diffusion 1.x" and submodel.name == "unet":
        operators = Counter(node.operator for node in report.nodes)
        assert len(report.nodes) <= 800
        assert operators["com.microsoft.MultiHeadAttention"] == 32
        assert operators["com.microsoft.GroupNorm"] == 61

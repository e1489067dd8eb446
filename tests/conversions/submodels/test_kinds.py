"""Inputs, outputs and sizes of every kind of submodel."""

from __future__ import annotations

from typing import Any

import pytest

from conversions.graph_kind import GraphKind
from tests.conversions.submodels.interfaces import (
    INTERFACES,
    by_kind,
    described,
)


@pytest.mark.parametrize(("kind", "config", "inputs", "outputs"), INTERFACES)
def test_inputs_and_outputs(
    kind: GraphKind, config: dict[str, Any], inputs: list[str], outputs: list[str]
) -> None:
    assert described(kind.inputs(config)) == inputs
    assert described(kind.outputs(config)) == outputs


@by_kind
def test_each_free_size_is_known_for_the_trace_and_the_comparison(kind: GraphKind) -> None:
    config = next(config for each, config, *_ in INTERFACES if each is kind)
    free = {size for spec in kind.inputs(config) for size in spec.shape if isinstance(size, str)}
    for sizes in (kind.sizes, kind.traced_sizes):
        assert free <= set(sizes)
        assert all(size > 1 for size in sizes.values())  # one would be traced as a constant
        assert len({sizes[each] for each in free}) == len(free)
        patch = config.get("patch_size", kind.defaults.get("patch_size"))
        if isinstance(patch, int) and "height" in sizes:
            assert sizes["height"] % patch == sizes["width"] % patch == 0
        if {"tokens", "height"} <= set(sizes):
            assert sizes["tokens"] * patch**2 == sizes["height"] * sizes["width"]

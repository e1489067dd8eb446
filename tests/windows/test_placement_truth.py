"""The static placement check against DirectML itself: a sample; ``placement_agreement`` compares all."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from conversions.providers.kernels import live_kernels, load_table
from tests.windows.placement_agreement import compare
from tests.windows.placement_models import cases

pytestmark = [pytest.mark.windows, pytest.mark.directml]

EVERY = 12
GRAPHS_OF_SEVERAL_NODES = 11


def test_the_check_says_what_directml_does() -> None:
    count = len(cases())
    numbers = [
        *range(0, count - GRAPHS_OF_SEVERAL_NODES, EVERY),
        *range(count - GRAPHS_OF_SEVERAL_NODES, count),
    ]

    result = compare(numbers)

    assert count >= 200
    assert not result["unexplained"]


def test_the_kernel_table_is_the_runtimes_own() -> None:
    internal = ("com.microsoft.dml.", "Memcpy")
    live = {
        key: types
        for key, types in live_kernels("DmlExecutionProvider").items()
        if not key[0].startswith(internal)
    }
    table = {key: kernel.types for key, kernel in load_table("directml").items()}

    def tensors(types: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        return {name: kinds - {"sequence"} for name, kinds in types.items()}

    assert live
    assert live.keys() == table.keys()
    differing = {key: (live[key], table[key]) for key in live if tensors(live[key]) != tensors(table[key])}
    assert not differing

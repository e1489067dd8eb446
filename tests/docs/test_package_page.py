"""The page of the package format names what every family writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conversions.family import Family, all_families

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "package.md").read_text("utf-8")


def named(text: str) -> set[str]:
    return set(re.findall(r"`([\w.-]+)`", text))


@pytest.mark.parametrize("family", all_families(), ids=lambda family: family.name)
def test_a_family_has_a_row_with_its_submodels_and_small_files(family: Family) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{family.name}` |"))
    if "| the same |" not in row:
        assert named(row) == {family.name, *family.metadata, *(part.name for part in family.parts)}


@pytest.mark.parametrize("family", all_families(), ids=lambda family: family.name)
def test_every_tensor_of_a_family_s_graphs_is_in_the_table(family: Family) -> None:
    table = named("\n".join(line for line in PAGE.splitlines() if line.startswith("|")))
    for shipped in family.shipped:
        tensors = (*shipped.kind.inputs(shipped.config), *shipped.kind.outputs(shipped.config))
        names = {re.sub(r"(?<=hidden_states\.)[1-9]\d*", "N", spec.name) for spec in tensors}
        assert names <= table, shipped.label

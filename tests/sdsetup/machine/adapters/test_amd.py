from itertools import pairwise

import pytest

from sdsetup.machine.adapters import amd


@pytest.mark.parametrize(
    ("device_id", "gfx"),
    [
        (0x67DF, "gfx803"),
        (0x687F, "gfx900"),
        (0x731F, "gfx1010"),
        (0x73BF, "gfx1030"),
        (0x73DF, "gfx1031"),
        (0x744C, "gfx1100"),
        (0x7480, "gfx1102"),
        (0x7550, "gfx1201"),
        (0x1681, "gfx1035"),
        (0x1586, "gfx1151"),
    ],
)
def test_well_known_cards_have_their_architecture(device_id: int, gfx: str) -> None:
    found = amd.architecture(device_id)
    assert found is not None
    assert found.gfx == gfx


def test_an_id_that_is_not_in_the_table_has_none() -> None:
    assert amd.architecture(0x0001) is None


def test_no_id_has_two_architectures() -> None:
    rows = sorted((first, last) for first, last, _ in amd._TABLE)
    for (_, last), (first, _) in pairwise(rows):
        assert last < first

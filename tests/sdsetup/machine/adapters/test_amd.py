import zlib
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


def test_the_table_is_the_published_one() -> None:
    """Numbers that were read from their source once: one that is changed unawares shows nowhere else."""
    assert zlib.crc32(repr(amd._TABLE).encode()) == 1492571596


def test_both_ends_of_a_row_belong_to_it() -> None:
    first, last, found = next(row for row in amd._TABLE if row[0] < row[1])
    assert amd.architecture(first) is amd.architecture(last) is found

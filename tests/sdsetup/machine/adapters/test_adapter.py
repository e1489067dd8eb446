"""What follows from an adapter's numbers."""

from __future__ import annotations

import pytest

from conversions.providers.adapter_ranking import AdapterRank
from sdsetup.machine.adapters.adapter import AMD, NVIDIA, VENDORS, Adapter


def test_what_no_system_tells_is_unknown() -> None:
    assert Adapter(index=2, name="x") == Adapter(
        index=2,
        name="x",
        vendor_id=0,
        device_id=0,
        vram_bytes=None,
        shared_bytes=None,
        driver="",
        driver_version="",
        driver_date="",
        software=False,
        integrated=None,
        rank=None,
    )


def test_the_rank_is_made_of_what_decides() -> None:
    adapter = Adapter(index=2, name="x", software=True, integrated=True, rank=4, vram_bytes=5, shared_bytes=7)
    assert adapter.adapter_rank == AdapterRank(
        index=2, software=True, integrated=True, rank=4, memory_bytes=5
    )


@pytest.mark.parametrize(
    ("own", "shared", "integrated", "usable"),
    [
        (None, 7, True, None),
        (5, 7, True, 12),
        (5, None, True, 5),
        (5, 7, False, 5),
        (5, 7, None, 5),
    ],
)
def test_an_integrated_adapter_uses_what_it_shares(
    own: int | None, shared: int | None, integrated: bool | None, usable: int | None
) -> None:
    adapter = Adapter(index=0, name="x", vram_bytes=own, shared_bytes=shared, integrated=integrated)
    assert adapter.usable_bytes == usable


@pytest.mark.parametrize(
    ("number", "vendor"),
    [
        (0x1002, "AMD"),
        (0x10DE, "NVIDIA"),
        (0x8086, "Intel"),
        (0x106B, "Apple"),
        (0x5143, "Qualcomm"),
        (0x1414, "vendor 0x1414"),
        (0x12, "vendor 0x0012"),
        (0, "unknown vendor"),
    ],
)
def test_vendors_are_called_by_their_names(number: int, vendor: str) -> None:
    assert Adapter(index=0, name="x", vendor_id=number).vendor == vendor


def test_the_numbers_are_those_of_the_pci_list() -> None:
    """Source: pci-ids.ucw.cz."""
    assert {VENDORS[AMD], VENDORS[NVIDIA]} == {"AMD", "NVIDIA"}
    assert len(VENDORS) == 5

"""DXGI read for real; the machine that runs this dresses its adapter as a Radeon RX 6800 with 16 GiB."""

import sys

import pytest

if sys.platform != "win32":
    pytest.skip("DXGI is part of Windows", allow_module_level=True)

from sdsetup.machine import adapters
from sdsetup.machine.adapters import dxgi

pytestmark = pytest.mark.windows


def test_adapters_come_in_dxgi_order_with_name_ids_and_memory() -> None:
    found = adapters.read()
    assert [adapter.index for adapter in found] == list(range(len(found)))
    first = found[0]
    assert first.name
    assert first.vendor_id
    assert first.vram_bytes is not None


def test_memory_beyond_4_gib_is_read_whole() -> None:
    """What WMI's 32-bit AdapterRAM cannot hold."""
    radeon = [adapter for adapter in dxgi.read() if adapter.vendor_id == adapters.AMD]
    if not radeon:
        pytest.skip("this machine shows no AMD adapter")
    assert radeon[0].vram_bytes is not None
    assert radeon[0].vram_bytes > 4 * 1024**3
    assert "Radeon" in radeon[0].name
    assert not radeon[0].software


def test_the_adapter_that_is_used_has_a_reason() -> None:
    chosen = adapters.choose(dxgi.read())
    assert chosen is not None
    assert chosen[1]


def test_reading_many_times_leaks_nothing_and_gives_the_same() -> None:
    once = dxgi.read()
    assert all(dxgi.read() == once for _ in range(20))


def test_every_adapter_has_its_own_place_in_the_order_by_speed() -> None:
    ranks = [adapter.rank for adapter in dxgi.read()]
    assert sorted(rank for rank in ranks if rank is not None) == list(range(len(ranks)))

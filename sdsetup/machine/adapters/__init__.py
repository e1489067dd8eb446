"""Graphics adapters, read from the system itself: one reader a platform, one value for all of them.

Standard library only. Every name comes from a driver and may hold anything: brackets, emoji, junk.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from conversions.providers.adapter_ranking import AdapterRank, best_adapter

VENDORS = {0x1002: "AMD", 0x10DE: "NVIDIA", 0x8086: "Intel", 0x106B: "Apple", 0x5143: "Qualcomm"}
AMD = 0x1002
NVIDIA = 0x10DE


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One graphics adapter.

    Attributes:
        index: Its place in the system's own order; on Windows DXGI's, which DirectML calls ``device_id``.
        name: As the driver or the PCI list calls it.
        vendor_id: PCI vendor, 0 when unknown.
        device_id: PCI device, 0 when unknown.
        vram_bytes: Memory of its own; None when the system does not tell.
        shared_bytes: Main memory it may use besides; None when the system does not tell.
        driver: The driver's name, or empty.
        driver_version: As the system writes it, or empty.
        driver_date: As the system writes it, or empty.
        software: It is a program, not a device (WARP, llvmpipe).
        integrated: It is part of the processor and lives on main memory; None when unknown.
        rank: The system's order by speed, 0 the fastest; None when the system keeps none.
    """

    index: int
    name: str
    vendor_id: int = 0
    device_id: int = 0
    vram_bytes: int | None = None
    shared_bytes: int | None = None
    driver: str = ""
    driver_version: str = ""
    driver_date: str = ""
    software: bool = False
    integrated: bool | None = None
    rank: int | None = None

    @property
    def adapter_rank(self) -> AdapterRank:
        """What decides between this adapter and others."""
        return AdapterRank(
            index=self.index,
            software=self.software,
            integrated=self.integrated,
            rank=self.rank,
            memory_bytes=self.vram_bytes,
        )

    @property
    def usable_bytes(self) -> int | None:
        """Memory for images: its own, and what an integrated one shares; None when that is unknown."""
        if self.vram_bytes is None:
            return None
        return self.vram_bytes + ((self.shared_bytes or 0) if self.integrated else 0)

    @property
    def vendor(self) -> str:
        """The vendor's name, or its number."""
        return VENDORS.get(
            self.vendor_id, f"vendor {self.vendor_id:#06x}" if self.vendor_id else "unknown vendor"
        )


def read() -> tuple[Adapter, ...]:
    """Read every adapter of this machine, in the system's own order.

    Raises:
        OSError: The system's interface failed.
    """
    if sys.platform == "win32":
        from sdsetup.machine.adapters import dxgi

        return dxgi.read()
    if sys.platform == "darwin":
        from sdsetup.machine.adapters import macos

        return macos.read()
    from sdsetup.machine.adapters import linux

    return linux.read()


def choose(adapters: Sequence[Adapter]) -> tuple[Adapter, str] | None:
    """Pick the adapter that images are made on when nobody names one, by ``standing``'s rule.

    Returns:
        The adapter and the reason in words, or None when there is no hardware adapter.
    """
    best = best_adapter(adapters)
    if best is None:
        return None
    others = [adapter for adapter in adapters if adapter is not best and not adapter.software]
    if not others:
        return best, "it is the only hardware adapter"
    alike = [other for other in others if (other.integrated is True) == (best.integrated is True)]
    if not alike:
        return best, "it has memory of its own, the integrated one uses main memory"
    if best.rank is not None:
        return best, "the system calls it the fastest"
    if (best.vram_bytes or 0) > max(other.vram_bytes or 0 for other in alike):
        return best, "it has the most memory of its own"
    return best, "it is the system's first"

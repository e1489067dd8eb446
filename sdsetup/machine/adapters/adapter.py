"""One graphics adapter, whatever system it was read from."""

from __future__ import annotations

from dataclasses import dataclass

from conversions.providers.adapter_ranking import AdapterRank

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

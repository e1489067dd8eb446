"""AMD's graphics architectures by PCI device id, and which routes to ONNX models exist for each.

Source: the id table of Linux' ``amdgpu`` driver (amdgpu_drv.c) and the PCI ID list for the chips; AMD's
ROCm system requirements for Linux and the ``gfx`` targets of its compiler for the names.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A generation of AMD graphics.

    Attributes:
        name: As AMD sells it.
        gfx: The compiler target, as ROCm names it.
        rocm: ROCm on Linux supports it officially.
        vendor_provider: Windows ML has a provider of AMD's for it (RDNA 3 and newer).
        integrated: The chip is part of a processor.
    """

    name: str
    gfx: str
    rocm: bool = False
    vendor_provider: bool = False
    integrated: bool = False


def _gpu(name: str, gfx: str, *, rocm: bool = False, new: bool = False, apu: bool = False) -> Architecture:
    return Architecture(name=name, gfx=gfx, rocm=rocm, vendor_provider=new, integrated=apu)


# First id, last id. APUs have scattered ids and come first.
_TABLE: tuple[tuple[int, int, Architecture], ...] = (
    (0x15DD, 0x15DD, _gpu("Vega (Raven Ridge)", "gfx902", apu=True)),
    (0x15D8, 0x15D8, _gpu("Vega (Picasso)", "gfx902", apu=True)),
    (0x1636, 0x1636, _gpu("Vega (Renoir)", "gfx90c", apu=True)),
    (0x1638, 0x1638, _gpu("Vega (Cezanne)", "gfx90c", apu=True)),
    (0x164C, 0x164C, _gpu("Vega (Lucienne)", "gfx90c", apu=True)),
    (0x15E7, 0x15E7, _gpu("Vega (Barcelo)", "gfx90c", apu=True)),
    (0x163F, 0x163F, _gpu("RDNA 2 (Van Gogh)", "gfx1033", apu=True)),
    (0x1435, 0x1435, _gpu("RDNA 2 (Van Gogh)", "gfx1033", apu=True)),
    (0x1681, 0x1681, _gpu("RDNA 2 (Rembrandt)", "gfx1035", apu=True)),
    (0x164D, 0x164D, _gpu("RDNA 2 (Rembrandt)", "gfx1035", apu=True)),
    (0x164E, 0x164E, _gpu("RDNA 2 (Raphael)", "gfx1036", apu=True)),
    (0x13C0, 0x13C0, _gpu("RDNA 2 (Granite Ridge)", "gfx1036", apu=True)),
    (0x1506, 0x1506, _gpu("RDNA 2 (Mendocino)", "gfx1037", apu=True)),
    (0x15BF, 0x15BF, _gpu("RDNA 3 (Phoenix)", "gfx1103", new=True, apu=True)),
    (0x15C8, 0x15C8, _gpu("RDNA 3 (Phoenix)", "gfx1103", new=True, apu=True)),
    (0x164F, 0x164F, _gpu("RDNA 3 (Phoenix)", "gfx1103", new=True, apu=True)),
    (0x1900, 0x1901, _gpu("RDNA 3 (Hawk Point)", "gfx1103", new=True, apu=True)),
    (0x150E, 0x150E, _gpu("RDNA 3.5 (Strix Point)", "gfx1150", new=True, apu=True)),
    (0x1586, 0x1586, _gpu("RDNA 3.5 (Strix Halo)", "gfx1151", rocm=True, new=True, apu=True)),
    (0x1114, 0x1114, _gpu("RDNA 3.5 (Krackan Point)", "gfx1152", new=True, apu=True)),
    (0x6600, 0x663F, _gpu("GCN 1 (Oland, Bonaire)", "gfx601")),
    (0x6640, 0x665F, _gpu("GCN 2 (Bonaire)", "gfx704")),
    (0x66A0, 0x66AF, _gpu("Vega (Vega 20)", "gfx906")),
    (0x6780, 0x679F, _gpu("GCN 1 (Tahiti)", "gfx600")),
    (0x67A0, 0x67BF, _gpu("GCN 2 (Hawaii)", "gfx701")),
    (0x67C0, 0x67FF, _gpu("GCN 4 (Polaris 10, 11)", "gfx803")),
    (0x6800, 0x683F, _gpu("GCN 1 (Pitcairn, Cape Verde)", "gfx601")),
    (0x6860, 0x687F, _gpu("Vega (Vega 10)", "gfx900")),
    (0x6920, 0x693F, _gpu("GCN 3 (Tonga)", "gfx802")),
    (0x694C, 0x694F, _gpu("GCN 4 (Polaris 22)", "gfx803")),
    (0x6980, 0x699F, _gpu("GCN 4 (Polaris 12)", "gfx803")),
    (0x69A0, 0x69AF, _gpu("Vega (Vega 12)", "gfx904")),
    (0x6FDF, 0x6FDF, _gpu("GCN 4 (Polaris 20)", "gfx803")),
    (0x7300, 0x730F, _gpu("GCN 3 (Fiji)", "gfx803")),
    (0x7310, 0x731F, _gpu("RDNA 1 (Navi 10)", "gfx1010")),
    (0x7340, 0x734F, _gpu("RDNA 1 (Navi 14)", "gfx1012")),
    (0x7360, 0x7362, _gpu("RDNA 1 (Navi 12)", "gfx1011")),
    (0x73A0, 0x73BF, _gpu("RDNA 2 (Navi 21)", "gfx1030", rocm=True)),
    (0x73C0, 0x73DF, _gpu("RDNA 2 (Navi 22)", "gfx1031")),
    (0x73E0, 0x73FF, _gpu("RDNA 2 (Navi 23)", "gfx1032")),
    (0x7420, 0x743F, _gpu("RDNA 2 (Navi 24)", "gfx1034")),
    (0x7440, 0x745F, _gpu("RDNA 3 (Navi 31)", "gfx1100", rocm=True, new=True)),
    (0x7460, 0x747F, _gpu("RDNA 3 (Navi 32)", "gfx1101", rocm=True, new=True)),
    (0x7480, 0x749F, _gpu("RDNA 3 (Navi 33)", "gfx1102", new=True)),
    (0x7550, 0x755F, _gpu("RDNA 4 (Navi 48)", "gfx1201", rocm=True, new=True)),
    (0x7590, 0x759F, _gpu("RDNA 4 (Navi 44)", "gfx1200", rocm=True, new=True)),
)


def architecture(device_id: int) -> Architecture | None:
    """Find an AMD adapter's architecture; None when the id is not in the table."""
    return next((found for first, last, found in _TABLE if first <= device_id <= last), None)

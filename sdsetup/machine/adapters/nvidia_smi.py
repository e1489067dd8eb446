"""NVIDIA's adapters as ``nvidia-smi`` tells them.

Source: ``nvidia-smi --help-query-gpu``.
"""

from __future__ import annotations

from sdsetup.machine.adapters.external_tools import (
    AdapterReading,
    ask,
    number,
    pci_address,
    size_bytes,
    words,
)

_FIELDS = "pci.bus_id,pci.device_id,driver_version,memory.total,name"
_MEBIBYTE = 1024**2


def read() -> tuple[AdapterReading, ...]:
    """Ask for every adapter; empty where there is no answer."""
    return parse(ask("nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"))


def parse(text: str) -> tuple[AdapterReading, ...]:
    """Understand one line an adapter; lines of another kind are left out."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",", 4)]  # the name is last: it may hold commas
        if len(fields) < 5 or not pci_address(fields[0]):
            continue
        bus, ids, version, mebibytes, name = fields
        numbers = number(ids)  # device in the upper half, vendor in the lower: 0x220610DE
        found.append(
            AdapterReading(
                address=pci_address(bus),
                vendor_id=numbers & 0xFFFF,
                device_id=numbers >> 16 & 0xFFFF,
                name=words(name),
                vram_bytes=size_bytes(mebibytes, _MEBIBYTE),
                driver_version=words(version),
                integrated=False,
            )
        )
    return tuple(found)

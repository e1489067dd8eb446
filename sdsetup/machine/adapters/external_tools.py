"""What a program tells of an adapter, and how such programs are asked: briefly, whatever they print."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

LIMIT_SECONDS = 4.0
_LONGEST_NAME = 120
_LARGEST_BYTES = 2**50


@dataclass(frozen=True, kw_only=True)
class AdapterReading:
    """What one program says of one adapter; what it does not say is empty, None or 0.

    Attributes:
        address: On the PCI bus, as sysfs writes it: ``"0000:03:00.0"``.
        vendor_id: PCI vendor.
        device_id: PCI device.
        name: What it is sold as.
        vram_bytes: Memory of its own.
        driver_version: As the program writes it.
        software: It is a program itself.
        integrated: It is part of the processor.
    """

    address: str = ""
    vendor_id: int = 0
    device_id: int = 0
    name: str = ""
    vram_bytes: int | None = None
    driver_version: str = ""
    software: bool = False
    integrated: bool | None = None


def ask(program: str, *arguments: str) -> str:
    """Return what a program on PATH prints; empty when it is not there, fails or takes too long."""
    found = shutil.which(program)
    if found is None:
        return ""
    try:
        return subprocess.run(
            [found, *arguments],
            capture_output=True, encoding="utf-8", errors="replace", timeout=LIMIT_SECONDS, check=True,
            stdin=subprocess.DEVNULL,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""


def words(value: object) -> str:
    """Return a program's text on one line without control characters; empty for what is no text."""
    if not isinstance(value, str):
        return ""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())
    return "" if line.strip("[]").upper() in {"N/A", "NOT SUPPORTED", "UNKNOWN"} else line[:_LONGEST_NAME]


def pci_address(value: object) -> str:
    """Return an address as sysfs writes it, from one with a domain of four or eight digits; else empty."""
    match = re.fullmatch(r"(?:0000)?([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", words(value).lower())
    return match[1] if match else ""


def number(value: object) -> int:
    """Read ``29772``, ``"29772"`` or ``"0x744c"``; 0 for anything else."""
    try:
        found = int(words(str(value)), 0)
    except ValueError:
        return 0
    return found if 0 <= found < _LARGEST_BYTES else 0


def size_bytes(value: object, unit_bytes: int) -> int | None:
    """Read an amount of a unit; None for none, for junk, and for more than any adapter has."""
    found = number(value) * unit_bytes
    return found if 0 < found < _LARGEST_BYTES else None

"""How much of a device's memory is planned for where nobody says.

An integrated GPU lives on main memory, and some providers do not tell what a card has. Then the system's own
share counts, or half of main memory: on Windows what all of graphics may have is
``MAX(TotalSystemMemory / 2, 64 MB)``, and Linux' amdgpu lets a GPU map half of main memory.

Source: Microsoft, Windows driver documentation, "Calculating graphics memory"; Linux, commit f7ba887f606b,
"drm/amdgpu: Adjust logic around GTT size".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdsetup.disk_space import human_size
from sdsetup.machine import adapters
from sdsetup.machine.adapters import Adapter
from sdsetup.runtime.devices import Device


@dataclass(frozen=True, kw_only=True)
class DeviceBudget:
    """Memory of a device that images are planned for.

    Attributes:
        size_bytes: How much; None on the CPU, whose memory is not planned.
        assumed: What it was reckoned from, for people; empty where it is the device's own memory.
    """

    size_bytes: int | None
    assumed: str = ""


def budget_of(device: Device, main_bytes: int) -> DeviceBudget:
    """Return what to plan for on a device; the system is asked where the device does not tell.

    Args:
        device: Where images are made.
        main_bytes: Main memory of the machine.
    """
    if device.provider.target == "cpu":
        return DeviceBudget(size_bytes=None)
    if device.discrete is not False and device.memory_bytes:
        return DeviceBudget(size_bytes=device.memory_bytes)
    try:
        cards = adapters.read()
    except OSError:  # the doctor reports it
        cards = ()
    return _of_system(device, cards) or _half(device, main_bytes)


def _of_system(device: Device, cards: Sequence[Adapter]) -> DeviceBudget | None:
    """Return what the system tells of a device; None where it tells too little."""
    card = next((each for each in cards if each.name == device.name), None)
    if card is None or not card.usable_bytes:
        return None
    if device.discrete is not False and not card.integrated:
        return DeviceBudget(size_bytes=card.usable_bytes)
    if not card.shared_bytes:
        return None
    size_bytes = (card.vram_bytes or 0) + card.shared_bytes
    return DeviceBudget(
        size_bytes=size_bytes,
        assumed=f"{device.name} lives on main memory, of which the system lets it have "
        f"{human_size(size_bytes)}: that is planned for",
    )


def _half(device: Device, main_bytes: int) -> DeviceBudget:
    known = "lives on main memory" if device.discrete is False else "does not tell its memory"
    return DeviceBudget(
        size_bytes=main_bytes // 2,
        assumed=f"{device.name} {known}: half of main memory is planned for, {human_size(main_bytes // 2)}",
    )

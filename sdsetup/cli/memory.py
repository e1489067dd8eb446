"""How a memory forecast is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdsetup.cli import output

if TYPE_CHECKING:
    from conversions.forecast import Forecast


def show_memory(memory: Forecast) -> None:
    """Say what a picture needs, on a GPU and without one."""
    output.say(
        f"A picture of {memory.width}x{memory.height} needs about {size_in_words(memory.device_bytes)} "
        f"of a GPU's memory, or {size_in_words(memory.staged_bytes)} with --low-vram, "
        f"and {size_in_words(memory.host_bytes)} of main memory; "
        f"without a GPU {size_in_words(memory.cpu_bytes)} of main memory."
    )


def size_in_words(count: int) -> str:
    """Write a number of bytes in the unit that suits it."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"

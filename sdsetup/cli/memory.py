"""How the memory that images need is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdsetup.cli import output

if TYPE_CHECKING:
    from sdsetup.imaging.image_memory import ImageMemory


def show_memory(memory: ImageMemory) -> None:
    """Say what an image needs, on a GPU and without one, and the largest that fits the card here."""
    needed = memory.forecast
    output.say(
        f"An image of {needed.width}x{needed.height} needs about {size_in_words(needed.device_bytes)} "
        f"of a GPU's memory, or {size_in_words(needed.staged_bytes)} with --low-vram, "
        f"and {size_in_words(needed.host_bytes)} of main memory; "
        f"without a GPU {size_in_words(needed.cpu_bytes)} of main memory."
    )
    if memory.largest_side:
        output.say(f"The largest that fits {memory.card}: {memory.largest_side}x{memory.largest_side}.")
    elif memory.largest_side == 0:
        output.say(f"{memory.card} has too little memory even for small images.", style="yellow")


def size_in_words(count: int) -> str:
    """Write a number of bytes in the unit that suits it."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"

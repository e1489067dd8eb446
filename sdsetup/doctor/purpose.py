"""What the machine is wanted for, and what that needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["anything", "install", "convert", "generate"]

_GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """A use of this machine; sizes are what must be free or available, in bytes.

    Attributes:
        kind: Which use.
        model: A Hub repository or a folder, or empty.
        ram_bytes: Main memory at the peak.
        ram_least_bytes: The same with one submodel at a time; 0 when that makes no difference.
        cache_bytes: Space where downloads go.
        output_bytes: Space where the result goes.
        temp_bytes: Space for temporary files.
        vram_bytes: Memory of the adapter that makes the images; 0 when that does not matter.
        vram_least_bytes: The same with one submodel at a time.
        basis: Where the numbers come from, in words.
        unknown: Why the needs of the named model are not known, or empty. Then the sizes judge nothing.
    """

    kind: Kind = "anything"
    model: str = ""
    ram_bytes: int
    cache_bytes: int
    output_bytes: int
    temp_bytes: int
    vram_bytes: int
    vram_least_bytes: int = 2 * _GIB
    ram_least_bytes: int = 0
    basis: str
    unknown: str = ""


# Of Stable Diffusion 1.x: 5.5 GB in fp32 to download, a 2.1 GB package in fp16, up to 6 GiB of main memory
# while parity is checked. Comfortable images want 6 GiB of adapter memory, 4 GiB are just enough.
_SD1 = "a Stable Diffusion 1.x checkpoint in fp32"
_PURPOSES: dict[Kind, Purpose] = {
    "anything": Purpose(
        ram_bytes=6 * _GIB, cache_bytes=6 * 10**9, output_bytes=3 * 10**9, temp_bytes=10**9,
        vram_bytes=6 * _GIB, basis=_SD1,
    ),
    "install": Purpose(
        kind="install", ram_bytes=2 * _GIB, cache_bytes=10**8, output_bytes=25 * 10**8, temp_bytes=15 * 10**8,
        vram_bytes=0, basis="the environment with everything in it",
    ),
    "convert": Purpose(
        kind="convert", ram_bytes=6 * _GIB, cache_bytes=6 * 10**9, output_bytes=3 * 10**9, temp_bytes=10**9,
        vram_bytes=0, basis=_SD1,
    ),
    "generate": Purpose(
        kind="generate", ram_bytes=4 * _GIB, cache_bytes=0, output_bytes=10**8, temp_bytes=10**8,
        vram_bytes=6 * _GIB, basis="512 x 512 images with a Stable Diffusion 1.x package in fp16",
    ),
}  # fmt: skip


def purpose(kind: Kind = "anything") -> Purpose:
    """Give what a use needs when no model is named."""
    return _PURPOSES[kind]

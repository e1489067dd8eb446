"""What each use needs where no model is named."""

from __future__ import annotations

import pytest

from sdsetup.doctor.purpose import Kind, Purpose, purpose

GIB = 2**30
GB = 10**9
MB = 10**6
SD1 = "a Stable Diffusion 1.x checkpoint in fp32"


@pytest.mark.parametrize(
    ("kind", "memory", "space", "card", "basis"),
    [
        ("anything", 6 * GIB, (6 * GB, 3 * GB, GB), 6 * GIB, SD1),
        ("install", 2 * GIB, (100 * MB, 2500 * MB, 1500 * MB), 0, "the environment with everything in it"),
        ("convert", 6 * GIB, (6 * GB, 3 * GB, GB), 0, SD1),
        (
            "generate",
            4 * GIB,
            (0, 100 * MB, 100 * MB),
            6 * GIB,
            "512 x 512 images with a Stable Diffusion 1.x package in fp16",
        ),
    ],
)
def test_a_use_needs_memory_and_space(
    kind: Kind, memory: int, space: tuple[int, int, int], card: int, basis: str
) -> None:
    cache, output, temp = space
    assert purpose(kind) == Purpose(
        kind=kind,
        model="",
        ram_bytes=memory,
        ram_least_bytes=0,
        cache_bytes=cache,
        output_bytes=output,
        temp_bytes=temp,
        vram_bytes=card,
        vram_least_bytes=2 * GIB,
        basis=basis,
        unknown="",
    )


def test_without_a_word_it_is_for_anything() -> None:
    assert purpose() == purpose("anything")

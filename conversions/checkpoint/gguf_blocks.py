"""Numbers from the blocks in which GGUF files store quantised tensors.

Source: the block layouts of ggml (ggml-common.h, ggml-quants.c).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BlockType:
    """A quantised type.

    Attributes:
        block: Elements in a block.
        block_bytes: Bytes of a block.
        decode: Makes [blocks, block] float32 of [blocks, block_bytes] uint8.
    """

    block: int
    block_bytes: int
    decode: Callable[[Bytes], Floats]


def _half(columns: Bytes) -> Floats:
    """Read a float16 column: [blocks, 2] bytes to [blocks, 1]."""
    return np.ascontiguousarray(columns).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Give the low halves of bytes, then the high ones: [..., n] to [..., 2n]."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _bits(packed: Bytes) -> Bytes:
    """Give single bits, the lowest first: [blocks, n] to [blocks, 8n]."""
    return np.unpackbits(packed, axis=-1, bitorder="little")


def _q4_0(blocks: Bytes) -> Floats:
    return (_nibbles(blocks[:, 2:]).astype(np.float32) - 8) * _half(blocks[:, :2])


def _q4_1(blocks: Bytes) -> Floats:
    return _nibbles(blocks[:, 4:]) * _half(blocks[:, :2]) + _half(blocks[:, 2:4])


def _q5_0(blocks: Bytes) -> Floats:
    codes = _nibbles(blocks[:, 6:]) | (_bits(blocks[:, 2:6]) << 4)
    return (codes.astype(np.float32) - 16) * _half(blocks[:, :2])


def _q5_1(blocks: Bytes) -> Floats:
    codes = _nibbles(blocks[:, 8:]) | (_bits(blocks[:, 4:8]) << 4)
    return codes * _half(blocks[:, :2]) + _half(blocks[:, 2:4])


def _q8_0(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks[:, 2:]).view(np.int8) * _half(blocks[:, :2])


def _scales_of_32(blocks: Bytes) -> tuple[Floats, Floats]:
    """Give the scale and the least value of each 32 elements of a 256-element block: [blocks, 8, 1] both.

    Both are 6-bit numbers times a float16: the first four of each lie in the low bits of bytes 0 to 7, the
    others have four bits in bytes 8 to 11 and two in the high bits of the former.
    """
    packed = blocks[:, 4:16]
    first, second, mixed = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (mixed & 15) | (first >> 6 << 4)], axis=-1)
    least = np.concatenate([second & 63, (mixed >> 4) | (second >> 6 << 4)], axis=-1)
    return (
        (_half(blocks[:, 0:2]) * scales)[..., None],
        (_half(blocks[:, 2:4]) * least)[..., None],
    )


def _q4_k(blocks: Bytes) -> Floats:
    scales, least = _scales_of_32(blocks)
    codes = _nibbles(blocks[:, 16:144].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return (codes * scales - least).reshape(-1, 256)


def _q5_k(blocks: Bytes) -> Floats:
    scales, least = _scales_of_32(blocks)
    codes = _nibbles(blocks[:, 48:176].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    return ((codes | (high << 4)) * scales - least).reshape(-1, 256)


def _q6_k(blocks: Bytes) -> Floats:
    low = _nibbles(blocks[:, 0:128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3
    codes = (low | (high << 4)).astype(np.float32) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8) * _half(blocks[:, 208:210])
    return (codes.reshape(-1, 16, 16) * scales[..., None]).reshape(-1, 256)


BLOCK_TYPES: Mapping[str, BlockType] = {
    "Q4_0": BlockType(block=32, block_bytes=18, decode=_q4_0),
    "Q4_1": BlockType(block=32, block_bytes=20, decode=_q4_1),
    "Q5_0": BlockType(block=32, block_bytes=22, decode=_q5_0),
    "Q5_1": BlockType(block=32, block_bytes=24, decode=_q5_1),
    "Q8_0": BlockType(block=32, block_bytes=34, decode=_q8_0),
    "Q4_K": BlockType(block=256, block_bytes=144, decode=_q4_k),
    "Q5_K": BlockType(block=256, block_bytes=176, decode=_q5_k),
    "Q6_K": BlockType(block=256, block_bytes=210, decode=_q6_k),
}
"""Quantised types by the name that ggml gives them."""

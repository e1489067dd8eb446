"""Element types of stored tensors, and how their bytes become numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

from conversions.checkpoint.gguf_blocks import BLOCK_TYPES, BlockType
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError

Numbers = npt.NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class ElementType:
    """How the elements of a type are stored.

    Attributes:
        block: Elements that are stored together and cannot be read apart; 1 for plain types.
        block_bytes: Bytes of one block.
        decode: Makes float16, float32 or float64 numbers of whole blocks.
    """

    block: int
    block_bytes: int
    decode: Callable[[bytearray], Numbers]

    def bytes_of(self, elements: int) -> int:
        """Return how many bytes a number of elements takes, whole blocks."""
        return elements // self.block * self.block_bytes


def element_type(tensor: StoredTensor) -> ElementType:
    """Return how a stored tensor's elements are read.

    Raises:
        ConversionError: ``weights.dtype``; no weight can be of this type.
    """
    found = ELEMENT_TYPES.get(tensor.dtype)
    if found is None:
        raise ConversionError(
            "weights.dtype",
            f"The tensor {tensor.name} is stored as {tensor.dtype}, which cannot be converted yet.",
            f"Supported are {', '.join(ELEMENT_TYPES)}.",
        )
    return found


def _bfloat16(raw: bytearray) -> Numbers:
    # bfloat16 is the upper half of float32.
    return np.left_shift(np.frombuffer(raw, np.uint16).astype(np.uint32), 16).view(np.float32)


def _plain(dtype: type[np.generic]) -> ElementType:
    return ElementType(
        block=1, block_bytes=np.dtype(dtype).itemsize, decode=lambda raw: np.frombuffer(raw, dtype)
    )


def _float8(dtype: type[np.generic]) -> ElementType:
    return ElementType(
        block=1, block_bytes=1, decode=lambda raw: np.frombuffer(raw, dtype).astype(np.float32)
    )


def _quantized(kind: BlockType) -> ElementType:
    def decode(raw: bytearray) -> Numbers:
        return kind.decode(np.frombuffer(raw, np.uint8).reshape(-1, kind.block_bytes)).reshape(-1)

    return ElementType(block=kind.block, block_bytes=kind.block_bytes, decode=decode)


ELEMENT_TYPES: Mapping[str, ElementType] = {
    "F16": _plain(np.float16),
    "F32": _plain(np.float32),
    "F64": _plain(np.float64),
    "BF16": ElementType(block=1, block_bytes=2, decode=_bfloat16),
    "F8_E4M3": _float8(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": _float8(ml_dtypes.float8_e5m2),
    **{name: _quantized(kind) for name, kind in BLOCK_TYPES.items()},
}
"""Types that weights may have, by the name that safetensors or ggml gives them."""

"""Blockwise weight-only quantisation to 4 or 8 bits, as ``com.microsoft.MatMulNBits`` reads it.

A matrix [N, K] is cut into blocks of 32 along K. A block has a scale and a zero point, so that
``weight = (code - zero point) * scale``; codes of 4 bits lie two in a byte, the first in the low half.

Source: com.microsoft.MatMulNBits in ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conversions.checkpoint.element_types import Numbers
from conversions.weights import kernels
from conversions.weights.expression import Read, Unary

BLOCK = 32
"""Weights that share a scale."""

BITS = {"int4": 4, "int8": 8}
"""Bits of a code by a submodel's precision."""


def quantizable(shape: tuple[int, ...]) -> bool:
    """Say whether a matrix [N, K] can be quantised: its blocks are whole, and of an even number in a row.

    Source: DirectML's kernel packs two zero points into a byte, and rows may not share one.
    """
    return len(shape) == 2 and shape[1] % (2 * BLOCK) == 0


@dataclass(frozen=True, kw_only=True)
class QuantizedBlocks:
    """Rows of a quantised matrix.

    Attributes:
        codes: [rows, K/32, 32] uint8.
        scales: [rows, K/32], float16 or float32 values held in float32.
        zero_points: [rows, K/32] uint8.
    """

    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.uint8]

    def restored(self) -> npt.NDArray[np.float32]:
        """Return the weights that the codes stand for, [rows, K] float32."""
        centered = self.codes.astype(np.float32) - self.zero_points[..., None]
        return (centered * self.scales[..., None]).reshape(len(self.codes), -1)


def quantize(matrix: npt.NDArray[np.floating], bits: int, scale_type: npt.DTypeLike) -> QuantizedBlocks:
    """Quantise whole rows to the nearest code between the least and the largest weight of each block.

    Zero is always a code, so that weights of zero stay zero. Scales are rounded to their stored type first,
    so that codes are nearest for the scale that is really used.

    Args:
        matrix: [rows, K].
        bits: 4 or 8.
        scale_type: Stored type of the scales.
    """
    blocks = _in_blocks(matrix)
    scales, zero_points = _grid(blocks, bits, scale_type)
    return QuantizedBlocks(
        codes=_codes(blocks, scales, zero_points, bits), scales=scales, zero_points=zero_points
    )


def _in_blocks(matrix: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return matrix.astype(np.float32, copy=False).reshape(len(matrix), -1, BLOCK)


def _grid(
    blocks: npt.NDArray[np.float32], bits: int, scale_type: npt.DTypeLike
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return the scale and the zero point of each block."""
    top = (1 << bits) - 1
    least, largest = kernels.ranges(blocks)
    low, high = np.minimum(least, 0), np.maximum(largest, 0)
    scales = ((high - low) / top).astype(scale_type).astype(np.float32)
    zero_points = np.clip(np.rint(-low * _inverse(scales)), 0, top)
    return scales, zero_points.astype(np.uint8)


def _codes(
    blocks: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    zero_points: npt.NDArray[np.uint8],
    bits: int,
) -> npt.NDArray[np.uint8]:
    """Return the code of each weight."""
    values = blocks * _inverse(scales)[..., None]
    np.rint(values, out=values)
    values += zero_points[..., None]
    np.clip(values, 0, (1 << bits) - 1, out=values)
    return values.astype(np.uint8)


def _inverse(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    inverse: npt.NDArray[np.float32] = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales != 0)
    return inverse


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Put codes of 4 bits two into a byte along the last axis."""
    if bits == 8:
        return codes
    high = np.left_shift(codes[..., 1::2], 4, dtype=np.uint8)
    packed: npt.NDArray[np.uint8] = np.bitwise_or(codes[..., 0::2], high)
    return packed


@dataclass(frozen=True, kw_only=True)
class _Quantized(Unary):
    """Something of a quantised matrix [N, K], evaluated in whole rows.

    Attributes:
        bits: 4 or 8.
        scale_type: Stored type of the scales, as safetensors names it.
    """

    bits: int
    scale_type: str

    @property
    def granule(self) -> int:
        """A row."""
        return self.size // self.shape[0]

    @property
    def _columns(self) -> int:
        return self.of.shape[1]

    @property
    def _scale_dtype(self) -> npt.DTypeLike:
        return np.float16 if self.scale_type == "F16" else np.float32

    def _rows(self, first: int, count: int, read: Read) -> npt.NDArray[np.floating]:
        rows = count // self.granule
        numbers = self.of.evaluate(first // self.granule * self._columns, rows * self._columns, read)
        return numbers.reshape(rows, self._columns)  # type: ignore[return-value]

    def _grid(
        self, first: int, count: int, read: Read
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        return _grid(_in_blocks(self._rows(first, count, read)), self.bits, self._scale_dtype)


@dataclass(frozen=True, kw_only=True)
class QuantizedCodes(_Quantized):
    """The codes: uint8 [N, K/32, 4 * bits]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the packed codes."""
        return (self.of.shape[0], self._columns // BLOCK, BLOCK * self.bits // 8)

    @property
    def dtype(self) -> str:
        """Bytes."""
        return "U8"

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Quantise and pack."""
        quantized = quantize(self._rows(first, count, read), self.bits, self._scale_dtype)
        return _packed(quantized.codes, self.bits).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class QuantizationScales(_Quantized):
    """The scales: [N, K/32]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """One for each block."""
        return (self.of.shape[0], self._columns // BLOCK)

    @property
    def dtype(self) -> str:
        """As they are stored."""
        return self.scale_type

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Find the blocks' ranges."""
        return self._grid(first, count, read)[0].reshape(-1)


@dataclass(frozen=True, kw_only=True)
class ZeroPoints(_Quantized):
    """The zero points: uint8 [N, K/32 * bits/8]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """One for each block, packed like codes."""
        return (self.of.shape[0], self._columns // BLOCK * self.bits // 8)

    @property
    def dtype(self) -> str:
        """Bytes."""
        return "U8"

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Find the blocks' ranges, and pack."""
        return _packed(self._grid(first, count, read)[1], self.bits).reshape(-1)

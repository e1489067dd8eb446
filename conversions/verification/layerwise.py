"""Run a PyTorch module in float32, a layer at a time, on weights of any type.

A module whose weights are kept in float16 takes half the memory; a layer's weights are float32 while it runs.
Quantised weights are restored in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from conversions.weights.expression import Tensors
from conversions.weights.quantize import BITS, quantize

if TYPE_CHECKING:
    import torch


# Models that take more than this in float32 are kept in float16 by the reference, where they are stored so.
_LARGE_BYTES = 6 << 30


def is_kept_in_float16(tensors: Tensors) -> bool:
    """Whether the reference keeps a component's weights in float16, since they are many and stored so."""
    elements = sum(tensor.size for tensor in tensors.values())
    return 4 * elements > _LARGE_BYTES and {tensor.dtype for tensor in tensors.values()} == {"F16"}


@contextlib.contextmanager
def in_float32(model: torch.nn.Module, quantized: Mapping[str, str]) -> Iterator[None]:
    """Let every layer that is called as a module compute in float32.

    Args:
        model: A component as diffusers or transformers have it.
        quantized: Precisions of weights that are rounded to what their quantised forms stand for, by name.
    """
    hooks = []
    try:
        for prefix, layer in model.named_modules():
            names = [name for name, _ in layer.named_parameters(recurse=False)]
            if names:
                dot = f"{prefix}." if prefix else ""
                precisions = {name: quantized.get(dot + name, "") for name in names}
                widening = _Widening(precisions)
                hooks.append(layer.register_forward_pre_hook(widening.widen))
                hooks.append(layer.register_forward_hook(widening.put_back))
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Widening:
    """The hooks of one layer, which keep its own weights while it runs."""

    def __init__(self, precisions: Mapping[str, str]) -> None:
        self._precisions = precisions
        self._kept: dict[str, torch.Tensor] = {}

    def widen(self, layer: torch.nn.Module, _: Any) -> None:
        for name, precision in self._precisions.items():
            parameter = getattr(layer, name)
            self._kept[name] = parameter.data
            parameter.data = _restored(parameter.data.float(), precision)

    def put_back(self, layer: torch.nn.Module, _: Any, __: Any) -> None:
        for name, weight in self._kept.items():
            getattr(layer, name).data = weight
        self._kept.clear()


def _restored(weight: torch.Tensor, precision: str) -> torch.Tensor:
    import torch

    if not precision:
        return weight
    blocks = quantize(weight.numpy(), BITS[precision], np.float16)
    return torch.from_numpy(blocks.restored()).reshape(weight.shape)


@contextlib.contextmanager
def uninitialised(dtype: torch.dtype) -> Iterator[None]:
    """Make modules whose weights have a type and no meaning, since they are overwritten: it takes no time.

    Args:
        dtype: Of the weights.
    """
    import torch
    from torch.nn import init

    names = ("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "uniform_", "normal_", "trunc_normal_")
    originals = {name: getattr(init, name) for name in names}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for name in names:
            setattr(init, name, lambda tensor, *_, **__: tensor)
        yield
    finally:
        torch.set_default_dtype(before)
        for name, original in originals.items():
            setattr(init, name, original)

"""Run a PyTorch module in float32, a layer at a time, on weights of any type.

A module whose weights are kept in float16 or bfloat16 takes half the memory; a layer's weights are float32
while it runs. Quantised weights are restored in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from conversions.weights.expression import Tensors
from conversions.weights.quantize import BITS, quantize

if TYPE_CHECKING:
    import torch

KeptType = Literal["float32", "float16", "bfloat16"]

# Models that take more than this in float32 are kept as they are stored.
_LARGE_BYTES = 6 << 30
# Parts of a model that take no more than this in float32 run in float32 as a whole.
_SMALL_BYTES = 256 << 20
_NARROW: dict[frozenset[str], KeptType] = {frozenset({"F16"}): "float16", frozenset({"BF16"}): "bfloat16"}


def kept_type(tensors: Tensors) -> KeptType:
    """Return the type in which the reference keeps a component's weights: as stored where they are many."""
    if 4 * sum(tensor.size for tensor in tensors.values()) <= _LARGE_BYTES:
        return "float32"
    return _NARROW.get(frozenset(tensor.dtype for tensor in tensors.values()), "float32")


@contextlib.contextmanager
def in_float32(model: torch.nn.Module, quantized: Mapping[str, str]) -> Iterator[None]:
    """Let every layer that is called as a module compute in float32.

    Args:
        model: A component as diffusers or transformers have it.
        quantized: Precisions of weights that are rounded to what their quantised forms stand for, by name.
    """
    hooks = []
    wide: set[int] = set()
    try:
        for prefix, layer in model.named_modules():
            # A block may look at the types of its layers before it calls them, as T5's and the embedding of
            # Z-Image's timesteps do.
            named = dict(layer.named_parameters(prefix=prefix, recurse=_runs_whole(layer)))
            if named:
                precisions = {name: quantized.get(name, "") for name in named}
                widening = _Widening(named, precisions, wide)
                hooks.append(layer.register_forward_pre_hook(widening.widen))
                hooks.append(layer.register_forward_hook(widening.put_back))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _runs_whole(layer: torch.nn.Module) -> bool:
    """Whether a module is small, or made of plain layers alone."""
    children = list(layer.children())
    if children and not any(True for child in children for _ in child.children()):
        return True
    size: int = sum(parameter.numel() for parameter in layer.parameters())
    return 4 * size <= _SMALL_BYTES


class _Widening:
    """The hooks of one layer or block, which keep its own weights while it runs.

    Args:
        parameters: By name.
        precisions: What each is rounded to; empty for nothing.
        wide: Identities of the parameters that are float32 at the moment, shared by all hooks.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], precisions: Mapping[str, str], wide: set[int]
    ) -> None:
        self._parameters = parameters
        self._precisions = precisions
        self._wide = wide
        self._kept: dict[str, torch.Tensor] = {}

    def widen(self, *_: Any) -> None:
        for name, parameter in self._parameters.items():
            if id(parameter) not in self._wide:
                self._wide.add(id(parameter))
                self._kept[name] = parameter.data
                parameter.data = _restored(parameter.data.float(), self._precisions[name])

    def put_back(self, *_: Any) -> None:
        for name, weight in self._kept.items():
            self._parameters[name].data = weight
            self._wide.discard(id(self._parameters[name]))
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

"""How far the numbers reach while PyTorch runs: the reference tells of float16's range on its way.

This module imports torch; only ``reference`` imports it, in the process that runs PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Attention scores are looked at for this many queries at a time, so that they take little memory.
_QUERIES = 1024


class ActivationRange(TorchFunctionMode):
    """Remembers the largest magnitude that any function of torch gives while the block runs.

    Attention counts with its scores before they are scaled: a kernel may scale the product after it is made.

    Attributes:
        largest: The largest magnitude so far; infinite once a NaN was met.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0.0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function as it is and look at what it gave."""
        named = kwargs or {}
        result = func(*args, **named)
        if func is functional.scaled_dot_product_attention:
            given = {**dict(zip(("query", "key"), args, strict=False)), **named}
            for queries in given["query"].split(_QUERIES, dim=-2):
                self._see(queries @ given["key"].transpose(-2, -1))
        self._see(result)
        return result

    def _see(self, result: Any) -> None:
        if not isinstance(result, Tensor) or not result.is_floating_point() or not result.numel():
            return
        low, high = result.aminmax()
        size = float(torch.maximum(-low, high))
        self.largest = math.inf if math.isnan(size) else max(self.largest, size)

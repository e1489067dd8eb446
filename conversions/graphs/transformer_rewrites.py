"""How the layers of transformers are written in ONNX: norms, rotary positions, grouped heads, patches.

This module imports torch; only ``trace`` imports it, through ``export_rewrites``, whose rule holds here too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx.defs import OpSchema
from onnxscript import opset18 as op
from onnxscript.values import Op, Opset
from torch import Tensor

# Added to attention scores that must not count: exp() of it is 0 in float32, and float16 can hold it.
# Source: mask_filter_value of com.microsoft.MultiHeadAttention in ONNX Runtime's ContribOperators.md.
MASKED = -10_000.0


def _operator(
    domain: str, name: str, inputs: Sequence[tuple[str, str]], **attributes: OpSchema.AttrType
) -> Op:
    """Declare an operator of ONNX Runtime that the onnx package does not know."""
    schema = OpSchema(
        name,
        domain,
        1,
        inputs=[OpSchema.FormalParameter(each, kind) for each, kind in inputs],
        outputs=[OpSchema.FormalParameter("output", "T")],
        type_constraints=[
            ("T", ["tensor(float)", "tensor(float16)"], ""),
            ("M", ["tensor(int64)"], ""),
        ],
        attributes=[OpSchema.Attribute(each, kind, "") for each, kind in attributes.items()],
    )
    return Op(Opset(domain, 18 if domain == "" else 1), name, schema)


# Source: onnxruntime/core/graph/contrib_ops/contrib_defs.cc registers it in ONNX's own domain.
_RMS_NORM = _operator(
    "",
    "SimplifiedLayerNormalization",
    [("X", "T"), ("scale", "T")],
    axis=OpSchema.AttrType.INT,
    epsilon=OpSchema.AttrType.FLOAT,
    stash_type=OpSchema.AttrType.INT,
)
# Source: onnxruntime/docs/ContribOperators.md.
_ROTARY = _operator(
    "com.microsoft",
    "RotaryEmbedding",
    [("input", "T"), ("position_ids", "M"), ("cos_cache", "T"), ("sin_cache", "T")],
    interleaved=OpSchema.AttrType.INT,
    num_heads=OpSchema.AttrType.INT,
)


@torch.library.custom_op("sdsetup::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square of the last axis.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    del weight, eps
    return torch.empty_like(x)


@torch.library.custom_op("sdsetup::rotary", mutates_args=())
def rotary(x: Tensor, cos: Tensor, sin: Tensor, heads: int, interleaved: bool) -> Tensor:
    """Turn pairs of each head's numbers by the angles of their position.

    Args:
        x: ``[batch, sequence, heads * size]``.
        cos: Of the angles, ``[sequence, size / 2]``.
        sin: Of the angles.
        heads: Number of heads.
        interleaved: Whether a pair are neighbours; else its numbers are half a head apart.

    Source: Su et al. 2021, arXiv:2104.09864.
    """
    split = x.unflatten(2, (heads, -1))
    cos, sin = cos[None, :, None], sin[None, :, None]
    if interleaved:
        first, second = split[..., 0::2], split[..., 1::2]
        return torch.stack([first * cos - second * sin, second * cos + first * sin], -1).flatten(2)
    first, second = split.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).flatten(2)


@rotary.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, heads: int, interleaved: bool) -> Tensor:
    del cos, sin, heads, interleaved
    return torch.empty_like(x)


@torch.library.custom_op("sdsetup::split_heads", mutates_args=())
def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, sequence, heads * size] -> [batch, sequence, heads, size]."""
    return x.unflatten(2, (heads, -1)).clone()


@split_heads.register_fake
def _(x: Tensor, heads: int) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], heads, x.shape[2] // heads)


@torch.library.custom_op("sdsetup::merge_heads", mutates_args=())
def merge_heads(x: Tensor) -> Tensor:
    """[batch, sequence, heads, size] -> [batch, sequence, heads * size]."""
    return x.flatten(2).clone()


@merge_heads.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])


@torch.library.custom_op("sdsetup::repeat_heads", mutates_args=())
def repeat_heads(x: Tensor, heads: int, times: int) -> Tensor:
    """Give each of several query heads a copy of the key or value head that they share.

    Source: Ainslie et al. 2023, arXiv:2305.13245.

    Args:
        x: ``[batch, sequence, heads * size]``.
        heads: Heads of the keys or values.
        times: Query heads for each of them.
    """
    return x.unflatten(2, (heads, -1)).repeat_interleave(times, 2).flatten(2)


@repeat_heads.register_fake
def _(x: Tensor, heads: int, times: int) -> Tensor:
    del heads
    return x.new_empty(x.shape[0], x.shape[1], x.shape[2] * times)


@torch.library.custom_op("sdsetup::causal_padding_bias", mutates_args=())
def causal_padding_bias(mask: Tensor, heads: int) -> Tensor:
    """Attention bias that hides later tokens and padding.

    Args:
        mask: int32 ``[batch, sequence]``; 0 for padding.
        heads: Heads of the attention.

    Returns:
        ``[batch, heads, sequence, sequence]``.
    """
    batch, sequence = mask.shape
    later = torch.full((sequence, sequence), MASKED).triu(1)[None, None]
    padding = ((1 - mask.float()) * MASKED)[:, None, None]
    return torch.minimum(later, padding).expand(batch, heads, sequence, sequence).clone()


@causal_padding_bias.register_fake
def _(mask: Tensor, heads: int) -> Tensor:
    batch, sequence = mask.shape
    return torch.empty(batch, heads, sequence, sequence)


@torch.library.custom_op("sdsetup::padding_bias", mutates_args=())
def padding_bias(mask: Tensor, queries: Tensor, heads: int) -> Tensor:
    """Attention bias that hides padding among the keys.

    Args:
        mask: int32 ``[batch, keys]``; 0 for padding.
        queries: Anything ``[batch, queries, ...]``.
        heads: Heads of the attention.

    Returns:
        ``[batch, heads, queries, keys]``: as a whole, since DirectML broadcasts no bias.
    """
    bias = ((1 - mask.float()) * MASKED)[:, None, None]
    return bias.expand(-1, heads, queries.shape[1], -1).clone()


@padding_bias.register_fake
def _(mask: Tensor, queries: Tensor, heads: int) -> Tensor:
    batch, keys = mask.shape
    return torch.empty(batch, heads, queries.shape[1], keys)


@torch.library.custom_op("sdsetup::unpatchify", mutates_args=())
def unpatchify(tokens: Tensor, like: Tensor, patch: int) -> Tensor:
    """Put square patches together to an image.

    Args:
        tokens: ``[batch, rows * columns, patch * patch * channels]``; channels change fastest.
        like: Any image of the result's height and width, ``[batch, _, height, width]``.
        patch: A patch's side.

    Source: ``unpatchify`` of diffusers' transformers, ``nhwpqc->nchpwq``.
    """
    batch, _, width = tokens.shape
    height, columns = like.shape[2] // patch, like.shape[3] // patch
    grid = tokens.reshape(batch, height, columns, patch, patch, width // patch**2)
    return torch.einsum("nhwpqc->nchpwq", grid).reshape(batch, -1, *like.shape[2:]).clone()


@unpatchify.register_fake
def _(tokens: Tensor, like: Tensor, patch: int) -> Tensor:
    batch, _, width = tokens.shape
    return tokens.new_empty(batch, width // patch**2, like.shape[2], like.shape[3])


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _write_rms_norm(x: Any, weight: Any, eps: float) -> Any:
    return _RMS_NORM(x, weight, axis=-1, epsilon=eps, stash_type=1)


def _write_rotary(x: Any, cos: Any, sin: Any, heads: int, interleaved: bool) -> Any:
    """The one position id says that the tables' first row is the first token's."""
    return _ROTARY(x, _ints(0), cos, sin, interleaved=int(interleaved), num_heads=heads)


def _write_split_heads(x: Any, heads: int) -> Any:
    return op.Reshape(x, _ints(0, 0, heads, -1))


def _write_merge_heads(x: Any) -> Any:
    return op.Reshape(x, _ints(0, 0, -1))


def _write_repeat_heads(x: Any, heads: int, times: int) -> Any:
    """Copy in four dimensions, which is as many as every kernel takes."""
    size = int(x.shape[2]) // heads
    copies = op.Expand(op.Reshape(x, _ints(0, -1, 1, size)), _ints(1, 1, times, 1))
    shape = op.Concat(_ints(0), op.Shape(x, start=1, end=2), _ints(heads * times * size), axis=0)
    return op.Reshape(copies, shape)


def _write_causal_padding_bias(mask: Any, heads: int) -> Any:
    sequence = op.Shape(mask, start=1, end=2)
    masked = op.Constant(value_float=MASKED)
    square = op.Expand(masked, op.Concat(sequence, sequence, axis=0))
    later = op.Trilu(square, op.Constant(value_int=1), upper=1)
    padding = op.Mul(op.Sub(op.Constant(value_float=1.0), op.Cast(mask, to=1)), masked)
    shape = op.Concat(op.Shape(mask, start=0, end=1), _ints(heads), sequence, sequence, axis=0)
    return op.Expand(op.Min(later, op.Unsqueeze(padding, _ints(1, 2))), shape)


def _write_padding_bias(mask: Any, queries: Any, heads: int) -> Any:
    masked = op.Constant(value_float=MASKED)
    padding = op.Mul(op.Sub(op.Constant(value_float=1.0), op.Cast(mask, to=1)), masked)
    batch, keys = op.Shape(mask, start=0, end=1), op.Shape(mask, start=1, end=2)
    shape = op.Concat(batch, _ints(heads), op.Shape(queries, start=1, end=2), keys, axis=0)
    return op.Expand(op.Unsqueeze(padding, _ints(1, 2)), shape)


def _write_unpatchify(tokens: Any, like: Any, patch: int) -> Any:
    sides = op.Div(op.Shape(like, start=2, end=4), _ints(patch))
    shape = op.Concat(_ints(0, int(tokens.shape[2])), sides, axis=0)
    grid = op.Reshape(op.Transpose(tokens, perm=[0, 2, 1]), shape)
    return grid if patch == 1 else op.DepthToSpace(grid, blocksize=patch, mode="DCR")


def _write_split_sizes(x: Any, sizes: Sequence[Any], dim: int = 0) -> Any:
    """Parts of unequal size as Slices: the exporter writes a sequence."""
    if not all(isinstance(size, int) for size in sizes):
        message = f"a split into parts whose sizes are not constant: {sizes}"
        raise NotImplementedError(message)
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    return tuple(
        op.Slice(x, _ints(end - size), _ints(end), _ints(dim), _ints(1))
        for size, end in zip(sizes, ends, strict=True)
    )


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return this module's part of the table for ``torch.onnx.export``."""
    own = torch.ops.sdsetup
    return {
        own.rms_norm.default: _write_rms_norm,
        own.rotary.default: _write_rotary,
        own.split_heads.default: _write_split_heads,
        own.merge_heads.default: _write_merge_heads,
        own.repeat_heads.default: _write_repeat_heads,
        own.causal_padding_bias.default: _write_causal_padding_bias,
        own.padding_bias.default: _write_padding_bias,
        own.unpatchify.default: _write_unpatchify,
        torch.ops.aten.split_with_sizes.default: _write_split_sizes,
    }


def norm_by_head(norm: Any, x: Tensor, heads: int) -> Tensor:
    """Apply an RMS norm to each head of ``[batch, sequence, heads * size]``; None leaves it as it is."""
    return x if norm is None else merge_heads(norm(split_heads(x, heads)))


def _norm_without_bias(self: Any, hidden_states: Tensor) -> Tensor:
    """The RMS norms of torch, diffusers and transformers, which name their epsilon differently."""
    eps = getattr(self, "variance_epsilon", None) or self.eps
    weight = self.weight if self.weight is not None else torch.ones(hidden_states.shape[-1])
    normed = rms_norm(hidden_states, weight, eps)
    return normed if getattr(self, "bias", None) is None else normed + self.bias


RMS_NORMS = frozenset({"RMSNorm", "Qwen3RMSNorm", "T5LayerNorm"})
"""Classes of torch, diffusers and transformers that ``rms_norm`` is the forward of."""


def make_norms_traceable(root: torch.nn.Module) -> None:
    """Give RMS norms a form that traces to one node."""
    for layer in root.modules():
        if type(layer).__name__ in RMS_NORMS:
            layer.forward = _norm_without_bias.__get__(layer)

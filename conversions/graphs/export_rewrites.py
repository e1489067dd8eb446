"""How a traced operator is written in ONNX where the exporter's own way is long or needs run-time shapes.

This module imports torch; only ``trace`` imports it, when an architecture has to be traced.

The rule of this file: every Reshape takes a constant shape or the shape of another tensor, so that a session
whose sizes are fixed folds all shape arithmetic away, as DirectML needs for one fused graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx.defs import OpSchema
from onnxscript import opset18 as op
from onnxscript.values import Op, Opset
from torch import Tensor, nn

from conversions.graphs import attention_rewrites, position_rewrites, transformer_rewrites
from conversions.graphs.transformer_rewrites import MASKED


def _contrib(
    name: str, inputs: Sequence[str], optional: Sequence[str] = (), **attributes: OpSchema.AttrType
) -> Op:
    """Declare an operator of ONNX Runtime's own domain, which the onnx package knows nothing of.

    Source: onnxruntime/docs/ContribOperators.md.
    """
    option = OpSchema.FormalParameterOption
    schema = OpSchema(
        name,
        "com.microsoft",
        1,
        inputs=[OpSchema.FormalParameter(each, "T") for each in inputs]
        + [OpSchema.FormalParameter(each, "T", param_option=option.Optional) for each in optional],
        outputs=[OpSchema.FormalParameter("output", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=[OpSchema.Attribute(each, kind, "") for each, kind in attributes.items()],
    )
    return Op(Opset("com.microsoft", 1), name, schema)


_MULTI_HEAD_ATTENTION = _contrib(
    "MultiHeadAttention",
    ["query"],
    ["key", "value", "bias", "key_padding_mask", "attention_bias"],
    num_heads=OpSchema.AttrType.INT,
    scale=OpSchema.AttrType.FLOAT,
)
_GELU = _contrib("Gelu", ["X"])
_FAST_GELU = _contrib("FastGelu", ["X"])


@torch.library.custom_op("sdsetup::attention", mutates_args=())
def attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, heads: int, scale: float | None = None
) -> Tensor:
    """Multi-head attention on [batch, sequence, heads * head size], scaled by 1/sqrt(head size) or as given.

    Source: Vaswani et al., "Attention Is All You Need", section 3.2.
    """
    split = [part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value)]
    mixed = nn.functional.scaled_dot_product_attention(*split, attn_mask=bias, scale=scale)
    return mixed.transpose(1, 2).flatten(2)


@attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, heads: int, scale: float | None = None
) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[1], value.shape[2])


@torch.library.custom_op("sdsetup::causal_bias", mutates_args=())
def causal_bias(tokens: Tensor, heads: int) -> Tensor:
    """Attention bias [batch, heads, sequence, sequence] that hides later tokens from earlier ones."""
    batch, sequence = tokens.shape
    bias = torch.full((sequence, sequence), MASKED).triu(1)
    return bias.expand(batch, heads, sequence, sequence).clone()


@causal_bias.register_fake
def _(tokens: Tensor, heads: int) -> Tensor:
    batch, sequence = tokens.shape
    return torch.empty(batch, heads, sequence, sequence)


@torch.library.custom_op("sdsetup::to_tokens", mutates_args=())
def to_tokens(image: Tensor) -> Tensor:
    """[batch, channels, height, width] -> [batch, height * width, channels]."""
    return image.flatten(2).transpose(1, 2).clone()


@to_tokens.register_fake
def _(image: Tensor) -> Tensor:
    batch, channels, height, width = image.shape
    return image.new_empty(batch, height * width, channels)


@torch.library.custom_op("sdsetup::to_image", mutates_args=())
def to_image(tokens: Tensor, like: Tensor) -> Tensor:
    """[batch, height * width, channels] -> the shape of ``like``, [batch, channels, height, width]."""
    return tokens.transpose(1, 2).reshape(like.shape).clone()


@to_image.register_fake
def _(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.new_empty(like.shape)


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _write_attention(
    query: Any, key: Any, value: Any, bias: Any, heads: int, scale: float | None = None
) -> Any:
    masks = () if bias is None else (None, None, bias)
    scaled = {} if scale is None else {"scale": scale}
    return _MULTI_HEAD_ATTENTION(query, key, value, *masks, num_heads=heads, **scaled)


def _write_causal_bias(tokens: Any, heads: int) -> Any:
    sequence = op.Shape(tokens, start=1, end=2)
    hidden = op.Trilu(
        op.Expand(op.Constant(value_float=MASKED), op.Concat(sequence, sequence, axis=0)),
        op.Constant(value_int=1),
        upper=1,
    )
    shape = op.Concat(op.Shape(tokens, start=0, end=1), _ints(heads), sequence, sequence, axis=0)
    return op.Expand(hidden, shape)


def _write_to_tokens(image: Any) -> Any:
    return op.Transpose(op.Reshape(image, _ints(0, 0, -1)), perm=[0, 2, 1])


def _write_to_image(tokens: Any, like: Any) -> Any:
    return op.Reshape(op.Transpose(tokens, perm=[0, 2, 1]), op.Shape(like))


def _write_group_norm(
    x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    """Group normalisation as instance normalisation over groups, with constant shapes only.

    ``0`` in a Reshape copies the input's dimension at that place: [N, C, H, W] becomes [N, G, C/G*H, W].
    Source: Wu and He, "Group Normalization", and ONNX's Reshape-14.
    """
    del cudnn_enabled
    channels, *space = list(x.shape)[1:]
    keep = [0] * (len(space) - 1)
    ones = op.Constant(value_floats=[1.0] * groups)
    zeros = op.Constant(value_floats=[0.0] * groups)
    grouped = op.Reshape(x, _ints(0, groups, -1, *keep))
    normal = op.Reshape(
        op.InstanceNormalization(grouped, ones, zeros, epsilon=eps), _ints(0, int(channels), -1, *keep)
    )
    if weight is None:
        return normal
    per_channel = _ints(*range(1, 1 + len(space)))
    return op.Add(op.Mul(normal, op.Unsqueeze(weight, per_channel)), op.Unsqueeze(bias, per_channel))


def _write_upsample(x: Any, output_size: Any, scale_factors: Sequence[float] | None) -> Any:
    """Nearest-neighbour enlarging of the last two axes.

    Source: torch's ``upsample_nearest2d`` takes source index floor(i * in / out): ONNX's asymmetric, floor.
    """
    style = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if output_size is None:
        scales = op.Constant(value_floats=[1.0, 1.0, *(scale_factors or ())])
        return op.Resize(x, None, scales, **style)
    sizes = [op.Reshape(size, _ints(-1)) for size in output_size]
    return op.Resize(x, None, None, op.Concat(op.Shape(x, start=0, end=2), *sizes, axis=0), **style)


def _write_split(x: Any, size: int, dim: int = 0) -> Any:
    parts = int(x.shape[dim]) // size
    return op.Split(x, num_outputs=parts, axis=dim)


def _write_gelu(x: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return _FAST_GELU(x)
    return _GELU(x)


def _write_slice(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    whole = (start is None or start == 0) and (end is None or (isinstance(end, int) and end >= 2**31))
    if whole and step == 1:
        return op.Identity(x)

    def as_ints(bound: Any) -> Any:
        return _ints(bound) if isinstance(bound, int) else op.Reshape(bound, _ints(-1))

    last = 2**31 - 1 if end is None else end
    return op.Slice(x, as_ints(start or 0), as_ints(last), _ints(dim), _ints(step))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the table for ``torch.onnx.export(custom_translation_table=...)``."""
    aten = torch.ops.aten
    own = torch.ops.sdsetup
    return {
        own.attention.default: _write_attention,
        own.causal_bias.default: _write_causal_bias,
        own.to_tokens.default: _write_to_tokens,
        own.to_image.default: _write_to_image,
        aten.group_norm.default: _write_group_norm,
        aten.upsample_nearest2d.vec: _write_upsample,
        aten.split.Tensor: _write_split,
        aten.gelu.default: _write_gelu,
        aten.slice.Tensor: _write_slice,
        **transformer_rewrites.translations(),
        **position_rewrites.translations(),
    }


class AttentionProcessor:
    """A diffusers attention processor for self, cross and spatial attention.

    Source: the order of norms, projections and residual is that of diffusers' ``AttnProcessor2_0``.
    """

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend; ``layer`` is diffusers' ``Attention``, the mask a bias for all heads."""
        del temb
        residual = hidden_states
        spatial = hidden_states.ndim == 4
        if layer.group_norm is not None:
            hidden_states = layer.group_norm(hidden_states)
        if spatial:
            hidden_states = to_tokens(hidden_states)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mixed = attention(
            layer.to_q(hidden_states), layer.to_k(context), layer.to_v(context), attention_mask, layer.heads
        )
        mixed = layer.to_out[0](mixed)
        if spatial:
            mixed = to_image(mixed, residual)
        if layer.residual_connection:
            mixed = mixed + residual
        return mixed if layer.rescale_output_factor == 1.0 else mixed / layer.rescale_output_factor


_PROCESSORS = {"AttnProcessor": AttentionProcessor, "AttnProcessor2_0": AttentionProcessor}


def _enter_transformer(self: Any, hidden_states: Tensor) -> tuple[Tensor, int]:
    hidden_states = self.norm(hidden_states)
    if self.use_linear_projection:
        tokens = self.proj_in(to_tokens(hidden_states))
    else:
        tokens = to_tokens(self.proj_in(hidden_states))
    return tokens, tokens.shape[2]


def _leave_transformer(
    self: Any,
    hidden_states: Tensor,
    residual: Tensor,
    batch_size: int,
    height: int,
    width: int,
    inner_dim: int,
) -> Tensor:
    del batch_size, height, width, inner_dim
    if self.use_linear_projection:
        return to_image(self.proj_out(hidden_states), residual) + residual
    return self.proj_out(to_image(hidden_states, residual)) + residual


def _clip_attention(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **unused: Any
) -> tuple[Tensor, None]:
    mixed = attention(
        self.q_proj(hidden_states),
        self.k_proj(hidden_states),
        self.v_proj(hidden_states),
        attention_mask,
        self.num_heads,
    )
    return self.out_proj(mixed), None


def _upsample(self: Any, hidden_states: Tensor, output_size: Any = None) -> Tensor:
    if output_size is None:
        larger = nn.functional.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
    else:
        larger = nn.functional.interpolate(hidden_states, size=output_size, mode="nearest")
    layer: Tensor = self.conv(larger)
    return layer


def _timesteps(self: Any, timesteps: Tensor) -> Tensor:
    """Sinusoids of the time, ``[n, channels]``, put together in order: diffusers swaps the halves after.

    Source: diffusers' ``get_timestep_embedding``.
    """
    half = self.num_channels // 2
    exponent = -math.log(10_000) * torch.arange(half, dtype=torch.float32)
    angles = timesteps[:, None].float() * torch.exp(exponent / (half - self.downscale_freq_shift))[None, :]
    angles = self.scale * angles
    waves = [torch.sin(angles), torch.cos(angles)]
    return torch.cat(waves[::-1] if self.flip_sin_to_cos else waves, dim=-1)


def make_traceable(root: nn.Module) -> None:
    """Give the layers of ``root`` forms that trace to few nodes and pose no conditions on sizes.

    An attention processor is replaced by its class; one that is not known is traced as it is.
    """
    from diffusers.models.embeddings import Timesteps
    from diffusers.models.transformers.transformer_2d import Transformer2DModel
    from diffusers.models.upsampling import Upsample2D
    from transformers.models.clip.modeling_clip import CLIPAttention

    transformer_rewrites.make_norms_traceable(root)
    processors = {**_PROCESSORS, **attention_rewrites.PROCESSORS}
    for layer in root.modules():
        processor = type(getattr(layer, "processor", None)).__name__
        if processor in processors:
            layer.processor = processors[processor]()
        elif isinstance(layer, Timesteps) and layer.num_channels % 2 == 0:
            layer.forward = _timesteps.__get__(layer)
        elif isinstance(layer, Transformer2DModel):
            layer._operate_on_continuous_inputs = _enter_transformer.__get__(layer)
            layer._get_output_for_continuous_inputs = _leave_transformer.__get__(layer)
        elif isinstance(layer, CLIPAttention):
            layer.forward = _clip_attention.__get__(layer)
        elif isinstance(layer, Upsample2D) and layer.use_conv and layer.norm is None:
            layer.forward = _upsample.__get__(layer)

"""How the attention of transformers is written in ONNX: what takes the place of diffusers' processors.

This module imports torch; only ``trace`` imports it, through ``export_rewrites``, whose rule holds here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from conversions.graphs.transformer_rewrites import merge_heads, norm_by_head, rotary, split_heads


def _attend_alone(layer: Any, hidden_states: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
    """Attend within one stream; queries and keys are normed by head and turned by the positions' angles."""
    heads = layer.heads
    query = norm_by_head(layer.norm_q, layer.to_q(hidden_states), heads)
    key = norm_by_head(layer.norm_k, layer.to_k(hidden_states), heads)
    query, key = (rotary(each, *positions, heads, True) for each in (query, key))
    mixed: Tensor = torch.ops.sdsetup.attention(query, key, layer.to_v(hidden_states), None, heads)
    return mixed


class SingleStreamProcessor:
    """Attention of one stream with norms by head and rotary positions, as in Z-Image.

    Source: ``ZSingleStreamAttnProcessor`` of diffusers 0.42.
    """

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend; ``freqs_cis`` are the cosines and sines of the positions' angles."""
        del encoder_hidden_states, attention_mask
        assert freqs_cis is not None
        projected: Tensor = layer.to_out[0](_attend_alone(layer, hidden_states, freqs_cis))
        return projected


class JointStreamProcessor:
    """Attention of text and image together, text first, as in Flux 2.

    Source: ``Flux2AttnProcessor`` of diffusers 0.42.
    """

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend; ``image_rotary_emb`` are the cosines and sines of all positions' angles."""
        del attention_mask
        assert encoder_hidden_states is not None
        assert image_rotary_emb is not None
        heads, words = layer.heads, encoder_hidden_states
        query = torch.cat(
            [
                norm_by_head(layer.norm_added_q, layer.add_q_proj(words), heads),
                norm_by_head(layer.norm_q, layer.to_q(hidden_states), heads),
            ],
            1,
        )
        key = torch.cat(
            [
                norm_by_head(layer.norm_added_k, layer.add_k_proj(words), heads),
                norm_by_head(layer.norm_k, layer.to_k(hidden_states), heads),
            ],
            1,
        )
        value = torch.cat([layer.add_v_proj(words), layer.to_v(hidden_states)], 1)
        query, key = (rotary(each, *image_rotary_emb, heads, True) for each in (query, key))
        mixed: Tensor = torch.ops.sdsetup.attention(query, key, value, None, heads)
        length = words.shape[1]
        return layer.to_out[0](mixed[:, length:]), layer.to_add_out(mixed[:, :length])


class ParallelProcessor:
    """Attention beside the layer's MLP, in Flux 2's blocks of one stream.

    Source: ``Flux2ParallelSelfAttnProcessor`` of diffusers 0.42.
    """

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend; ``image_rotary_emb`` are the cosines and sines of all positions' angles."""
        del attention_mask
        assert image_rotary_emb is not None
        heads, width = layer.heads, layer.inner_dim
        both = layer.to_qkv_mlp_proj(hidden_states)
        sizes = [width, width, width, layer.mlp_hidden_dim * layer.mlp_mult_factor]
        query, key, value, hidden = torch.split(both, sizes, dim=-1)
        query, key = (
            rotary(norm_by_head(norm, each, heads), *image_rotary_emb, heads, True)
            for norm, each in ((layer.norm_q, query), (layer.norm_k, key))
        )
        mixed = torch.ops.sdsetup.attention(query, key, value, None, heads)
        projected: Tensor = layer.to_out(torch.cat([mixed, layer.mlp_act_fn(hidden)], -1))
        return projected


class FluxProcessor(JointStreamProcessor):
    """Attention of text and image together, text first, or of both in one stream, as in FLUX.1.

    Source: ``FluxAttnProcessor`` of diffusers 0.42.
    """

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Any:
        """Attend; a layer of one stream projects what comes out together with its MLP."""
        if encoder_hidden_states is not None:
            return super().__call__(
                layer, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
        assert image_rotary_emb is not None
        return _attend_alone(layer, hidden_states, image_rotary_emb)


class ImageFirstProcessor:
    """Attention of image and text together, image first, or of the image alone, as in Stable Diffusion 3.

    Source: ``JointAttnProcessor2_0`` of diffusers 0.42.
    """

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend; the last layer's text is not projected, since nothing reads it."""
        del attention_mask
        heads, words = layer.heads, encoder_hidden_states
        query = norm_by_head(layer.norm_q, layer.to_q(hidden_states), heads)
        key = norm_by_head(layer.norm_k, layer.to_k(hidden_states), heads)
        value = layer.to_v(hidden_states)
        if words is None:
            alone: Tensor = layer.to_out[0](torch.ops.sdsetup.attention(query, key, value, None, heads))
            return alone
        query = torch.cat([query, norm_by_head(layer.norm_added_q, layer.add_q_proj(words), heads)], 1)
        key = torch.cat([key, norm_by_head(layer.norm_added_k, layer.add_k_proj(words), heads)], 1)
        value = torch.cat([value, layer.add_v_proj(words)], 1)
        mixed: Tensor = torch.ops.sdsetup.attention(query, key, value, None, heads)
        length = hidden_states.shape[1]
        image, text = mixed[:, :length], mixed[:, length:]
        return layer.to_out[0](image), text if layer.context_pre_only else layer.to_add_out(text)


def _normed(layer: Any, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the norms of queries and keys, all heads together, where a layer has some."""
    query = query if layer.norm_q is None else layer.norm_q(query)
    return query, key if layer.norm_k is None else layer.norm_k(key)


class LinearProcessor:
    """Attention without a softmax: its sums over all tokens are made once, as in Sana.

    The values' last row is ones, so that one product gives the mixed values and what they are divided by.

    Source: ``SanaLinearAttnProcessor2_0`` of diffusers 0.42; Katharopoulos et al. 2020, arXiv:2006.16236.
    """

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend within one stream."""
        del encoder_hidden_states, attention_mask
        pair = _normed(layer, layer.to_q(hidden_states), layer.to_k(hidden_states))
        query, key, value = (split_heads(each, layer.heads) for each in (*pair, layer.to_v(hidden_states)))
        query, key = query.permute(0, 2, 3, 1).relu(), key.transpose(1, 2).relu()
        value = torch.nn.functional.pad(value.permute(0, 2, 3, 1), (0, 0, 0, 1), value=1.0)
        sums = (value @ key) @ query
        mixed = sums[:, :, :-1] / (sums[:, :, -1:] + 1e-15)
        projected: Tensor = layer.to_out[0](merge_heads(mixed.permute(0, 3, 1, 2)))
        return projected


class NormedProcessor:
    """Attention to a text, with norms of queries and keys before they are split into heads, as in Sana.

    Source: ``SanaAttnProcessor2_0`` of diffusers 0.42.
    """

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend; the mask is a bias for all heads."""
        words = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = _normed(layer, layer.to_q(hidden_states), layer.to_k(words))
        mixed = torch.ops.sdsetup.attention(query, key, layer.to_v(words), attention_mask, layer.heads)
        projected: Tensor = layer.to_out[0](mixed)
        return projected


PROCESSORS: dict[str, Callable[[], Any]] = {
    "ZSingleStreamAttnProcessor": SingleStreamProcessor,
    "Flux2AttnProcessor": JointStreamProcessor,
    "FluxAttnProcessor": FluxProcessor,
    "JointAttnProcessor2_0": ImageFirstProcessor,
    "Flux2ParallelSelfAttnProcessor": ParallelProcessor,
    "SanaLinearAttnProcessor2_0": LinearProcessor,
    "SanaAttnProcessor2_0": NormedProcessor,
}
"""What takes the place of an attention processor of diffusers, by its class."""

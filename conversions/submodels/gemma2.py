"""Gemma 2's language model as a text encoder: token ids to its last states, ``Gemma2Model``.

Source: Gemma Team 2024, arXiv:2408.00118.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from conversions.graph_kind import Config, GraphKind, Rename, TensorSpec
from conversions.submodels import config_fields
from conversions.submodels.library_class import transformers_class, transformers_component
from conversions.submodels.padding import example_mask
from conversions.submodels.qwen3 import rotary_theta
from conversions.submodels.qwen3 import unsupported as unsupported_positions

# Source: transformers 5.23's Gemma2Config; a test compares.
DEFAULTS: Config = {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
}
# Source: the default of sliding_window of the same.
_WINDOW = 4096

STREAM = 2.0**-6
"""What the residual stream is multiplied by.

It grows with every layer. Float16 then holds 4 million, and DirectML's norms, which keep a variance in
float16, hold deviations of 16,384. The norms that read the stream undo it: in float32 not a bit changes.
"""


def unsupported(config: Config, length: int) -> str:
    """Say what of a configuration the graph cannot express; empty where nothing is.

    Args:
        config: The text encoder's configuration.
        length: The most tokens that it reads.
    """
    if config.get("use_bidirectional_attention"):
        return "The text encoder attends to later words too, which is not supported."
    window = config.get("sliding_window", _WINDOW)
    if window is not None and window < length:
        return f"The text encoder attends within {window} tokens; prompts have up to {length}."
    return unsupported_positions(config)


def width_of(config: Config) -> int:
    """Return the length of a token's state."""
    return int(config.get("hidden_size", DEFAULTS["hidden_size"]))


def _relevant(config: Config) -> Config:
    return {
        **{name: config[name] for name in DEFAULTS if name in config},
        "rope_theta": rotary_theta(config),
    }


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    del config
    return tuple(
        TensorSpec(name=name, dtype="int32", shape=("batch", "sequence"))
        for name in ("input_ids", "attention_mask")
    )


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    shape = ("batch", "sequence", width_of(config))
    return (TensorSpec(name="last_hidden_state", dtype="float", shape=shape),)


def _wrap(component: Any) -> Any:
    """Wrap a model whose attention is written out: no operator caps the scores."""
    import torch
    from torch.nn.functional import embedding

    from conversions.graphs.position_rewrites import rotary_tables
    from conversions.graphs.transformer_rewrites import (
        causal_padding_bias,
        merge_heads,
        repeat_heads,
        rms_norm,
        rotary,
        split_heads,
    )

    config = component.config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    theta, cap = config.rope_parameters["rope_theta"], config.attn_logit_softcapping

    def read(norm: Any, stream: torch.Tensor) -> torch.Tensor:
        return rms_norm(stream, norm.weight + 1.0, norm.eps * STREAM**2)

    def to_stream(norm: Any, states: torch.Tensor) -> torch.Tensor:
        return rms_norm(states, (norm.weight + 1.0) * STREAM, norm.eps)

    class TextEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            words = embedding(input_ids, self.model.embed_tokens.weight)
            stream = words * (config.hidden_size**0.5 * STREAM)
            bias = causal_padding_bias(attention_mask, 1)
            tables = rotary_tables(input_ids.shape[1], config.head_dim, theta)
            for layer in self.model.layers:
                mixed = self._attend(layer.self_attn, read(layer.input_layernorm, stream), bias, tables)
                stream = stream + to_stream(layer.post_attention_layernorm, mixed)
                fed = layer.mlp(read(layer.pre_feedforward_layernorm, stream))
                stream = stream + to_stream(layer.post_feedforward_layernorm, fed)
            return read(self.model.norm, stream)

        def _attend(
            self,
            layer: Any,
            states: torch.Tensor,
            bias: torch.Tensor,
            tables: tuple[torch.Tensor, torch.Tensor],
        ) -> torch.Tensor:
            query = rotary(layer.q_proj(states), *tables, heads, False)
            key, value = rotary(layer.k_proj(states), *tables, groups, False), layer.v_proj(states)
            if groups != heads:
                key, value = (repeat_heads(each, groups, heads // groups) for each in (key, value))
            query, key, value = (split_heads(each, heads).transpose(1, 2) for each in (query, key, value))
            scores = (query * layer.scaling) @ key.transpose(2, 3)
            if cap is not None:
                scores = torch.tanh(scores / cap) * cap
            shares = torch.softmax(scores + bias, dim=-1)
            mixed: torch.Tensor = layer.o_proj(merge_heads((shares @ value).transpose(1, 2)))
            return mixed

    return TextEncoder()


def _reference(component: Any) -> Any:
    import torch

    class Reference(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.model(
                input_ids=input_ids.long(), attention_mask=attention_mask.long(), use_cache=False
            ).last_hidden_state
            return states

    return Reference()


def _input_ids(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    import numpy

    return random.integers(0, config.get("vocab_size", DEFAULTS["vocab_size"]), shape).astype(numpy.int32)


GEMMA2_TEXT = GraphKind(
    fields=config_fields.GEMMA2,
    id="gemma2_text",
    class_name="Gemma2Model",
    also=("Gemma2ForCausalLM",),
    defaults={**DEFAULTS, "rope_theta": 10_000.0},
    irrelevant=frozenset(),
    relevant=_relevant,
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(transformers_class, "Gemma2Model"),
    create=partial(transformers_component, "Gemma2Model", "Gemma2Config"),
    wrap=_wrap,
    reference=_reference,
    renames=(Rename(pattern=r"^model\.", replacement=""),),
    # The head that predicts words.
    unused=(r"^lm_head\.",),
    quantizable=True,
    sizes={"batch": 2, "sequence": 45},
    traced_sizes={"batch": 2, "sequence": 13},
    example={"input_ids": _input_ids, "attention_mask": example_mask},
)

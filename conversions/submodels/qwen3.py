"""Qwen3's language model as a text encoder: token ids to the states behind some of its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from conversions.graph_kind import Config, GraphKind, Rename, TensorSpec
from conversions.submodels import config_fields
from conversions.submodels.library_class import transformers_class, transformers_component
from conversions.submodels.padding import example_mask

# Source: transformers 5.23's Qwen3Config; a test compares.
DEFAULTS: Config = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
}
# Source: the default of Qwen3Config's rope_parameters.
_THETA = 10_000.0


def rotary_theta(config: Config) -> float:
    """Return the base of the rotary positions, which transformers 5 nests and 4 does not."""
    nested = config.get("rope_parameters") or {}
    return float(config.get("rope_theta") or nested.get("rope_theta") or _THETA)


def unsupported(config: Config) -> str:
    """Say what of a configuration the graph cannot express; empty where nothing is."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind != "default":
        return f"The text encoder's rotary positions are scaled ({kind}), which is not supported."
    if config.get("use_sliding_window"):
        return "The text encoder attends within a sliding window, which is not supported."
    return ""


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


def _states(config: Config, layers: Sequence[int]) -> tuple[TensorSpec, ...]:
    width = config.get("hidden_size", DEFAULTS["hidden_size"])
    return tuple(
        TensorSpec(name=f"hidden_states.{layer}", dtype="float", shape=("batch", "sequence", width))
        for layer in layers
    )


def last_but_one(config: Config) -> int:
    """Return how many layers the states before the last layer have behind them."""
    return int(config.get("num_hidden_layers", DEFAULTS["num_hidden_layers"])) - 1


def _wrap(component: Any, layers: Sequence[int]) -> Any:
    import torch

    from conversions.graphs.export_rewrites import attention
    from conversions.graphs.position_rewrites import rotary_tables
    from conversions.graphs.transformer_rewrites import (
        causal_padding_bias,
        norm_by_head,
        repeat_heads,
        rotary,
    )

    config = component.config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    theta = config.rope_parameters["rope_theta"]

    class TextEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
            state = self.model.embed_tokens(input_ids)
            bias = causal_padding_bias(attention_mask, heads)
            cos, sin = rotary_tables(input_ids.shape[1], config.head_dim, theta)
            found = {}
            for number, layer in enumerate(self.model.layers[: max(layers)], start=1):
                state = state + self._attend(layer.self_attn, layer.input_layernorm(state), bias, cos, sin)
                state = state + layer.mlp(layer.post_attention_layernorm(state))
                found[number] = state
            return tuple(found[number] for number in layers)

        def _attend(
            self,
            layer: Any,
            state: torch.Tensor,
            bias: torch.Tensor,
            cos: torch.Tensor,
            sin: torch.Tensor,
        ) -> torch.Tensor:
            query = norm_by_head(layer.q_norm, layer.q_proj(state), heads)
            key = norm_by_head(layer.k_norm, layer.k_proj(state), groups)
            query, key = rotary(query, cos, sin, heads, False), rotary(key, cos, sin, groups, False)
            value = layer.v_proj(state)
            if groups != heads:
                key, value = (repeat_heads(each, groups, heads // groups) for each in (key, value))
            mixed: torch.Tensor = layer.o_proj(attention(query, key, value, bias, heads))
            return mixed

    return TextEncoder()


def _reference(component: Any, layers: Sequence[int]) -> Any:
    import torch

    class Reference(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
            states = self.model(
                input_ids=input_ids.long(),
                attention_mask=attention_mask.long(),
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states
            return tuple(states[layer] for layer in layers)

    return Reference()


def _input_ids(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    import numpy

    return random.integers(0, config.get("vocab_size", DEFAULTS["vocab_size"]), shape).astype(numpy.int32)


def _last_but_one_states(config: Config) -> tuple[TensorSpec, ...]:
    return _states(config, (last_but_one(config),))


def _of_last_but_one(make: Callable[[Any, Sequence[int]], Any], component: Any) -> Any:
    """Wrap a component for the states before its last layer."""
    return make(component, (last_but_one(component.config.to_dict()),))


QWEN3_LAST_BUT_ONE = GraphKind(
    fields=config_fields.QWEN3,
    id="qwen3_text",
    variant="last but one",
    class_name="Qwen3Model",
    also=("Qwen3ForCausalLM",),
    defaults={**DEFAULTS, "rope_theta": _THETA},
    irrelevant=frozenset(),
    relevant=_relevant,
    inputs=_inputs,
    outputs=_last_but_one_states,
    component_class=partial(transformers_class, "Qwen3Model"),
    create=partial(transformers_component, "Qwen3Model", "Qwen3Config"),
    wrap=partial(_of_last_but_one, _wrap),
    reference=partial(_of_last_but_one, _reference),
    renames=(Rename(pattern=r"^model\.", replacement=""),),
    # Layers behind the last output, the norm behind the last layer and the head that predicts words.
    unused=(r"^(model\.)?(layers\.\d+|norm|lm_head)\.",),
    quantizable=True,
    sizes={"batch": 2, "sequence": 45},
    traced_sizes={"batch": 2, "sequence": 13},
    example={"input_ids": _input_ids, "attention_mask": example_mask},
)
"""The states before the last layer, which has no part in it."""

FLUX2_LAYERS = (9, 18, 27)
"""Source: ``text_encoder_out_layers`` of diffusers' Flux2KleinPipeline."""

QWEN3_THREE_LAYERS = replace(
    QWEN3_LAST_BUT_ONE,
    variant="layers 9, 18, 27",
    outputs=partial(_states, layers=FLUX2_LAYERS),
    wrap=partial(_wrap, layers=FLUX2_LAYERS),
    reference=partial(_reference, layers=FLUX2_LAYERS),
)
"""The states behind three layers; those behind the last of them have no part in it."""

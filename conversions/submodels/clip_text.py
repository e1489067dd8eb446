"""CLIP's text encoder, ``CLIPTextModel``: token ids to the states that guide the U-Net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from conversions.graph_kind import Config, GraphKind, Rename, TensorSpec
from conversions.submodels import config_fields
from conversions.submodels.library_class import transformers_class, transformers_component

# Source: transformers 5.23's CLIPTextConfig; a test compares.
DEFAULTS: Config = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 512,
    "eos_token_id": 49407,
}
IRRELEVANT = frozenset(
    {
        "architectures",
        "attention_dropout",
        "bos_token_id",
        "dropout",
        "dtype",
        "gradient_checkpointing",
        "initializer_factor",
        "initializer_range",
        "model_type",
        "pad_token_id",
        "torch_dtype",
        "transformers_version",
    }
)


def width_of(config: Config) -> int:
    """Return the width of an encoder's states."""
    return int(config.get("hidden_size", DEFAULTS["hidden_size"]))


def projected_width_of(config: Config) -> int:
    """Return the width of an encoder's projected pooled state."""
    return int(config.get("projection_dim", DEFAULTS["projection_dim"]))


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    del config
    return (TensorSpec(name="input_ids", dtype="int32", shape=("batch", "sequence")),)


def _plain_outputs(config: Config) -> tuple[TensorSpec, ...]:
    width = width_of(config)
    return (
        TensorSpec(name="last_hidden_state", dtype="float", shape=("batch", "sequence", width)),
        TensorSpec(name="pooler_output", dtype="float", shape=("batch", width)),
    )


def _layered_outputs(config: Config) -> tuple[TensorSpec, ...]:
    """Return the last states, the pooled one and every layer's states, named as optimum names them."""
    width = width_of(config)
    layers = config.get("num_hidden_layers", DEFAULTS["num_hidden_layers"])
    return (
        *_plain_outputs(config),
        *(
            TensorSpec(name=f"hidden_states.{layer}", dtype="float", shape=("batch", "sequence", width))
            for layer in range(layers + 1)
        ),
    )


def _projected_outputs(config: Config) -> tuple[TensorSpec, ...]:
    last, _, *layers = _layered_outputs(config)
    width = projected_width_of(config)
    return (TensorSpec(name="text_embeds", dtype="float", shape=("batch", width)), last, *layers)


def _plain_choice(encoder: Any, states: list[Any], pooled: Any) -> tuple[Any, ...]:
    del encoder
    return states[-1], pooled


def _layered_choice(encoder: Any, states: list[Any], pooled: Any) -> tuple[Any, ...]:
    del encoder
    return states[-1], pooled, *states[:-1]


def _projected_choice(encoder: Any, states: list[Any], pooled: Any) -> tuple[Any, ...]:
    return encoder.text_projection(pooled), states[-1], *states[:-1]


def _wrap(component: Any) -> Any:
    return _text_encoder(component, _plain_choice)


def _wrap_layered(component: Any) -> Any:
    return _text_encoder(component, _layered_choice)


def _wrap_projected(component: Any) -> Any:
    return _text_encoder(component, _projected_choice)


def _text_encoder(component: Any, choose: Callable[[Any, list[Any], Any], tuple[Any, ...]]) -> Any:
    """Wrap a text encoder.

    Args:
        component: The model of transformers.
        choose: Picks the outputs; called with the model, the states before each layer, after the last one and
            after the final norm, and the pooled state.
    """
    import torch

    from conversions.graphs.export_rewrites import causal_bias

    class TextEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
            # A model with a projection holds the encoder in an attribute.
            model = getattr(self.model, "text_model", self.model)
            places = model.embeddings.position_embedding.weight[: input_ids.shape[1]]
            states = [model.embeddings.token_embedding(input_ids) + places]
            bias = causal_bias(input_ids, self.model.config.num_attention_heads)
            for layer in model.encoder.layers:
                states.append(layer(states[-1], attention_mask=bias))
            states.append(model.final_layer_norm(states[-1]))
            pooled = states[-1].gather(1, self._ends(input_ids, states[-1])).squeeze(1)
            return choose(self.model, states, pooled)

        def _ends(self, input_ids: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
            """Return where each text ends, ready for ``gather``: [batch, 1, width].

            Source: CLIPTextModel.forward of transformers, whose configs with eos_token_id 2 mean "the
            highest token id", since the field was wrong when they were written.
            """
            eos = self.model.config.eos_token_id
            marks = input_ids if eos == 2 else (input_ids == eos).int()
            return marks.argmax(1)[:, None, None].expand(-1, 1, states.shape[2])

    return TextEncoder()


def _input_ids(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    """Make token ids as a tokenizer would: begin, words, end, padding."""
    import numpy

    vocabulary = config.get("vocab_size", 49408)
    ids = random.integers(0, vocabulary - 2, shape)
    ids[:, 0] = vocabulary - 2
    for row, end in enumerate(random.integers(shape[1] // 3, shape[1], shape[0])):
        ids[row, end:] = vocabulary - 1
    return ids.astype(numpy.int32)


def skip_layers(model: ir.Model, *, count: int) -> None:
    """Let the final norm read the states before the last ``count`` layers, in place.

    Source: ``encode_prompt`` of diffusers' StableDiffusionPipeline with ``clip_skip``.

    Args:
        model: A graph of this kind.
        count: Layers to leave out, 1 or more.
    """
    norms = {
        str(value.name): node
        for node in model.graph
        for value in node.inputs
        if value is not None and value.is_initializer()
    }
    layers = sum(name.endswith(".layer_norm1.weight") for name in norms)
    skipped = norms[f"encoder.layers.{layers - count}.layer_norm1.weight"]
    norms["final_layer_norm.weight"].replace_input_with(0, skipped.inputs[0])
    common.RemoveUnusedNodesPass()(model)


CLIP_TEXT = GraphKind(
    fields=config_fields.CLIP_TEXT,
    id="clip_text",
    class_name="CLIPTextModel",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT | {"projection_dim"},
    inputs=_inputs,
    outputs=_plain_outputs,
    component_class=partial(transformers_class, "CLIPTextModel"),
    create=partial(transformers_component, "CLIPTextModel", "CLIPTextConfig"),
    wrap=_wrap,
    # Source: transformers 5 drops this prefix when it loads (PrefixChange in its conversion_mapping.py).
    renames=(Rename(pattern=r"^text_model\.", replacement=""),),
    unused=(r"embeddings\.position_ids$",),
    quantizable=True,
    sensitive=(r"^text_projection\.",),
    vocabulary="embeddings.token_embedding.weight",
    sizes={"batch": 2, "sequence": 77},
    traced_sizes={"batch": 2, "sequence": 13},
    skip_layers=skip_layers,
    example={"input_ids": _input_ids},
)
CLIP_TEXT_LAYERS = replace(
    CLIP_TEXT, variant="layers", outputs=_layered_outputs, wrap=_wrap_layered, skip_layers=None
)
"""The same with the states of every layer, of which SDXL takes the one before the last."""

CLIP_TEXT_PROJECTED = replace(
    CLIP_TEXT,
    variant="projected",
    class_name="CLIPTextModelWithProjection",
    irrelevant=IRRELEVANT,
    outputs=_projected_outputs,
    component_class=partial(transformers_class, "CLIPTextModelWithProjection"),
    create=partial(transformers_component, "CLIPTextModelWithProjection", "CLIPTextConfig"),
    wrap=_wrap_projected,
    renames=(),
    skip_layers=None,
)
"""With a projection of the pooled state and the states of every layer: SDXL's larger encoder."""

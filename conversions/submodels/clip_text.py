"""CLIP's text encoder, ``CLIPTextModel``: token ids to the states that guide the U-Net."""

from __future__ import annotations

from typing import Any

from conversions.graph_kind import Config, GraphKind, Rename, TensorSpec

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
        "projection_dim",
        "torch_dtype",
        "transformers_version",
    }
)


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    del config
    return (TensorSpec(name="input_ids", dtype="int32", shape=("batch", "sequence")),)


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    width = config.get("hidden_size", 512)
    return (
        TensorSpec(name="last_hidden_state", dtype="float", shape=("batch", "sequence", width)),
        TensorSpec(name="pooler_output", dtype="float", shape=("batch", width)),
    )


def _class() -> Any:
    from transformers import CLIPTextModel

    return CLIPTextModel


def _create(config: Config) -> Any:
    from transformers import CLIPTextConfig

    return _class()(CLIPTextConfig(**config))


def _wrap(component: Any) -> Any:
    import torch

    from conversions.graphs.export_rewrites import causal_bias

    class TextEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            model = self.model
            places = model.embeddings.position_embedding.weight[: input_ids.shape[1]]
            states = model.embeddings.token_embedding(input_ids) + places
            bias = causal_bias(input_ids, model.config.num_attention_heads)
            for layer in model.encoder.layers:
                states = layer(states, attention_mask=bias)
            states = model.final_layer_norm(states)
            return states, states.gather(1, self._ends(input_ids, states)).squeeze(1)

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


CLIP_TEXT = GraphKind(
    name="text_encoder",
    component="text_encoder",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    inputs=_inputs,
    outputs=_outputs,
    component_class=_class,
    create=_create,
    wrap=_wrap,
    # Source: transformers 5 drops this prefix when it loads (PrefixChange in its conversion_mapping.py).
    renames=(Rename(pattern=r"^text_model\.", replacement=""),),
    unused=(r"embeddings\.position_ids$",),
    sizes={"batch": 2, "sequence": 77},
    example={"input_ids": _input_ids},
)

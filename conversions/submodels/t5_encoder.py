"""T5's encoder, ``T5EncoderModel``: token ids to states, with and without a mask for padding.

T5's residual stream leaves float16's range in large published models. It is carried in units of 64 here:
powers of two in the weights that write to it, undone by the norms that read it. In float32 not a bit changes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import MethodType
from typing import Any

from conversions.errors import ConversionError
from conversions.graph_kind import Config, GraphKind, Rename, TensorSpec, WeightScale
from conversions.submodels import config_fields
from conversions.submodels.library_class import transformers_class, transformers_component
from conversions.submodels.padding import example_mask

# Source: transformers 5.23's T5Config; a test compares.
DEFAULTS: Config = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
}
_IRRELEVANT = frozenset(
    {
        "architectures",
        "classifier_dropout",
        "decoder_start_token_id",
        "dense_act_fn",
        "dropout_rate",
        "dtype",
        "eos_token_id",
        "initializer_factor",
        "is_decoder",
        "is_encoder_decoder",
        "is_gated_act",
        "model_type",
        "n_positions",
        "num_decoder_layers",
        "output_past",
        "pad_token_id",
        "scale_decoder_outputs",
        "task_specific_params",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)

STREAM = 2.0**-6
"""What the residual stream is multiplied by: float16 then holds 4 million."""

INNER = 2.0**-4
"""What the inside of a feed-forward layer is multiplied by: the product of its two halves is large too."""

_FEED_FORWARD = ("gated-gelu", "relu")
_EXAMPLE_WORDS = 20


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    kind = config.get("feed_forward_proj", DEFAULTS["feed_forward_proj"])
    if kind not in _FEED_FORWARD:
        raise ConversionError(
            "config.invalid",
            f"The text encoder's config.json says feed_forward_proj = {kind}, "
            f"which is neither of {' and '.join(_FEED_FORWARD)}.",
            "Convert another checkpoint, or report this with the config.json.",
        )
    return (TensorSpec(name="input_ids", dtype="int32", shape=("batch", "tokens")),)


def _masked_inputs(config: Config) -> tuple[TensorSpec, ...]:
    mask = TensorSpec(name="attention_mask", dtype="int32", shape=("batch", "tokens"))
    return (*_inputs(config), mask)


def width_of(config: Config) -> int:
    """Return the width of an encoder's states."""
    return int(config.get("d_model", DEFAULTS["d_model"]))


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    width = width_of(config)
    return (TensorSpec(name="last_hidden_state", dtype="float", shape=("batch", "tokens", width)),)


def _reference(component: Any) -> Any:
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component
            for block in component.encoder.block:
                dense = block.layer[1].DenseReluDense
                dense.forward = MethodType(_feed_forward, dense)

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
        ) -> torch.Tensor:
            states: torch.Tensor = self.model(input_ids, attention_mask).last_hidden_state
            return states

    return Encoder()


def _feed_forward(dense: Any, states: Any) -> Any:
    """Run transformers' layer without its casts to a weight's type, which the reference keeps narrow."""
    if hasattr(dense, "wi"):
        return dense.wo(dense.act(dense.wi(states)))
    return dense.wo(dense.act(dense.wi_0(states)) * dense.wi_1(states))


def _wrap(component: Any) -> Any:
    """Wrap an encoder whose weights are scaled as ``SCALES`` says; its norms alone have to know."""
    import torch
    from torch.nn.functional import gelu

    from conversions.graphs.export_rewrites import attention
    from conversions.graphs.position_rewrites import relative_bias
    from conversions.graphs.transformer_rewrites import padding_bias, rms_norm

    def normal(norm: Any, states: torch.Tensor) -> torch.Tensor:
        return rms_norm(states, norm.weight, norm.variance_epsilon * STREAM**2)

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component
            component.encoder.embed_tokens = None  # another name of ``shared``

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
        ) -> torch.Tensor:
            encoder = self.model.encoder
            first = encoder.block[0].layer[0].SelfAttention
            bias = relative_bias(first.relative_attention_bias.weight, input_ids, _buckets(first))
            if attention_mask is not None:
                bias = bias + padding_bias(attention_mask, input_ids, self.model.config.num_heads)
            stream = self.model.shared(input_ids)
            for attending, feeding in (block.layer for block in encoder.block):
                stream = stream + self._attend(
                    attending.SelfAttention, normal(attending.layer_norm, stream), bias
                )
                stream = stream + self._feed(feeding.DenseReluDense, normal(feeding.layer_norm, stream))
            return normal(encoder.final_layer_norm, stream)

        def _attend(self, layer: Any, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            query, key, value = layer.q(states), layer.k(states), layer.v(states)
            mixed: torch.Tensor = layer.o(
                attention(query, key, value, bias, self.model.config.num_heads, 1.0)
            )
            return mixed

        def _feed(self, dense: Any, states: torch.Tensor) -> torch.Tensor:
            if self.model.config.is_gated_act:
                inner = gelu(dense.wi_0(states), approximate="tanh") * dense.wi_1(states)
            else:
                inner = dense.wi(states).relu()
            fed: torch.Tensor = dense.wo(inner)
            return fed

    return Encoder()


def _buckets(attention: Any) -> list[int]:
    """Return the bucket of each distance, from the farthest to the left to the farthest to the right."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    farthest = attention.relative_attention_max_distance
    with unset_fake_temporarily():
        buckets = attention._relative_position_bucket(
            torch.arange(-farthest, farthest + 1),
            bidirectional=True,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=farthest,
        )
        found: list[int] = buckets.tolist()
    return found


def _input_ids(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    """Make token ids as a tokenizer would: words, end, padding."""
    import numpy

    ids = random.integers(3, config.get("vocab_size", DEFAULTS["vocab_size"]), shape)
    for row, end in enumerate(random.integers(1, min(_EXAMPLE_WORDS, shape[1]), shape[0])):
        ids[row, end] = 1
        ids[row, end + 1 :] = 0
    return ids.astype(numpy.int32)


SCALES = (
    WeightScale(pattern=r"^shared\.weight$", factor=STREAM),
    WeightScale(pattern=r"\.SelfAttention\.o\.weight$", factor=STREAM),
    # A ReLU gives twice as much for twice as much: the ungated layer is scaled as the gated one's half.
    WeightScale(pattern=r"\.DenseReluDense\.wi(_1)?\.weight$", factor=INNER),
    WeightScale(pattern=r"\.DenseReluDense\.wo\.weight$", factor=STREAM / INNER),
)
"""What the package's weights are multiplied by."""


T5_ENCODER = GraphKind(
    fields=config_fields.T5,
    id="t5_encoder",
    class_name="T5EncoderModel",
    defaults=DEFAULTS,
    irrelevant=_IRRELEVANT,
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(transformers_class, "T5EncoderModel"),
    create=partial(transformers_component, "T5EncoderModel", "T5Config"),
    wrap=_wrap,
    reference=_reference,
    scales=SCALES,
    # Source: _tied_weights_keys of transformers' T5EncoderModel. Files hold the table once or twice; of two
    # that differ, which transformers does not tie, the encoder reads its own.
    renames=(Rename(pattern=r"^encoder\.embed_tokens\.weight$", replacement="shared.weight", copy=True),),
    # Source: _keys_to_ignore_on_load_unexpected of the same class.
    unused=(r"^shared\.weight$", r"^decoder\."),
    quantizable=True,
    sensitive=(r"relative_attention_bias\.",),
    sizes={"batch": 2, "tokens": 77},
    traced_sizes={"batch": 2, "tokens": 13},
    example={"input_ids": _input_ids},
)

T5_ENCODER_MASKED = replace(
    T5_ENCODER,
    variant="masked",
    inputs=_masked_inputs,
    example={**T5_ENCODER.example, "attention_mask": example_mask},
)
"""The same with a mask, for pipelines that hide the padding of short prompts."""

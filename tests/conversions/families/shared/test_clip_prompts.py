"""States before the last layer of several of CLIP's encoders, on numbers that name their layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from conversions.families.shared.clip_prompts import layers_of, states_before_last
from conversions.recipe import EncodedPrompt

CONFIGS = {"small": {"num_hidden_layers": 4}, "large": {"num_hidden_layers": 7}}
ENCODERS = [("small", "tokenizer"), ("large", "tokenizer_2")]


class Prompts:
    """Chunks of two tokens, as many as are asked for."""

    def encode(self, prompt: str, tokenizer: str, *, at_least: int = 1) -> Any:
        tokens = np.full((at_least, 2), {"tokenizer": 1, "tokenizer_2": 2}[tokenizer], np.int32)
        return EncodedPrompt(tokens=tokens, weights=np.full(tokens.shape, len(prompt), np.float32))

    def embed(self, hidden: Any, encoded: EncodedPrompt) -> Any:
        return hidden.reshape(1, -1, hidden.shape[-1]) * encoded.weights[0, 0]


def run(encoder: str, inputs: Any) -> Any:
    tokens = inputs["input_ids"]
    layers, width = CONFIGS[encoder]["num_hidden_layers"], {"small": 1, "large": 2}[encoder]
    states = {
        f"hidden_states.{layer}": np.full((*tokens.shape, width), layer * tokens[0, 0], np.float32)
        for layer in range(layers)
    }
    pooled = np.arange(len(tokens) * width, dtype=np.float32).reshape(len(tokens), width)
    return {**states, "text_embeds": pooled} if encoder == "large" else states


def test_each_encoder_leaves_out_its_own_last_layers() -> None:
    for skip, small, large in ((0, 3, 6), (1, 2, 5), (3, 0, 3)):
        prompts: Any = Prompts()
        states, pooled = states_before_last(run, prompts, "abc", ENCODERS, CONFIGS, chunks=3, skip=skip)
        assert states.shape == (1, 6, 3)
        assert states[0, 5].tolist() == [3 * small, 3 * 2 * large, 3 * 2 * large]
        assert [each.tolist() for each in pooled] == [[[0.0, 1.0]]]


def test_an_encoder_that_says_no_number_has_the_usual_one() -> None:
    assert [layers_of({}), layers_of({"num_hidden_layers": None}), layers_of({"num_hidden_layers": 23})] == [
        12,
        12,
        23,
    ]

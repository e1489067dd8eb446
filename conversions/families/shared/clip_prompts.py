"""Prompts of models that read CLIP's states before the last layer, of one or several encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from conversions.graph_kind import Config
from conversions.recipe import Floats, PromptEncoder, Run
from conversions.submodels.clip_text import DEFAULTS


def layers_of(config: Config) -> int:
    """Return the number of layers of an encoder."""
    return int(config.get("num_hidden_layers") or DEFAULTS["num_hidden_layers"])


def states_before_last(
    run: Run,
    prompts: PromptEncoder,
    text: str,
    encoders: Sequence[tuple[str, str]],
    configs: Mapping[str, Config],
    *,
    chunks: int,
    skip: int,
) -> tuple[Floats, tuple[Floats, ...]]:
    """Return a prompt's states of all encoders side by side, and their pooled states.

    Args:
        run: Runs a submodel.
        prompts: Splits the prompt into chunks.
        text: The prompt.
        encoders: Folders of the encoders and of their tokenizers.
        configs: Configurations of the components.
        chunks: The least number of chunks.
        skip: Layers to leave out beside the last.

    Returns:
        The states, ``[1, tokens, width]``, and of each encoder that projects it, the pooled state of the
        first chunk, ``[1, width]``.
    """
    states, pooled = [], []
    for encoder, tokenizer in encoders:
        encoded = prompts.encode(text, tokenizer, at_least=chunks)
        outputs = run(encoder, {"input_ids": encoded.tokens})
        layer = layers_of(configs[encoder]) - 1 - skip
        states.append(prompts.embed(outputs[f"hidden_states.{layer}"], encoded))
        if "text_embeds" in outputs:
            pooled.append(outputs["text_embeds"][:1])
    return np.concatenate(states, axis=-1), tuple(pooled)

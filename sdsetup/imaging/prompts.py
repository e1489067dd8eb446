"""Encode prompts of any length with weighted words, and combine the chunks' embeddings.

``(word)`` has 1.1 times the attention, ``[word]`` 1.1 times less, ``(word:1.3)`` 1.3 times; brackets
nest, and a backslash makes one literal. A bracket without a partner is literal too.
Source: the notation and its 1.1 are those of the AUTOMATIC1111 web interface.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sdsetup.imaging.schedulers import Floats
from sdsetup.imaging.tokenizer import ClipTokenizer

_BRACKET_WEIGHT = 1.1
_PIECES = re.compile(r"\\[()\[\]\\]|[()\[\]]|[^\\()\[\]]+|\\")
_NUMBER = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")
# A larger correction comes from a mean near zero, not from the weights.
_MOST_CORRECTION = 4.0


@dataclass(frozen=True, kw_only=True)
class Span:
    """A part of a prompt and its attention weight; 1 is neutral."""

    text: str
    weight: float


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Input of the text encoder for one prompt.

    Attributes:
        tokens: int32 ``[chunks, length]``, each chunk with its own start and end.
        weights: float32 ``[chunks, length]``; start, end and padding are neutral.
    """

    tokens: NDArray[np.int32]
    weights: Floats


def parse(prompt: str) -> tuple[Span, ...]:
    """Parse a prompt into spans of equal weight.

    Neighbours of equal weight are joined, so a prompt without weights is one span.
    """
    spans: list[Span] = []
    open_brackets: list[tuple[str, int]] = []
    for piece in _PIECES.findall(prompt):
        if piece in ("(", "["):
            open_brackets.append((piece, len(spans)))
            spans.append(Span(text=piece, weight=1.0))
        elif piece in (")", "]") and open_brackets and open_brackets[-1][0] == {")": "(", "]": "["}[piece]:
            _, start = open_brackets.pop()
            factor = _BRACKET_WEIGHT if piece == ")" else 1 / _BRACKET_WEIGHT
            inner = spans[start + 1 :]
            if piece == ")" and inner and (number := _NUMBER.search(inner[-1].text)):
                factor = float(number[1])
                inner[-1] = Span(text=inner[-1].text[: number.start()], weight=inner[-1].weight)
            spans[start:] = [Span(text=span.text, weight=span.weight * factor) for span in inner]
        else:
            literal = piece[1:] if len(piece) == 2 and piece[0] == "\\" else piece
            spans.append(Span(text=literal, weight=1.0))
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].weight == span.weight:
            joined[-1] = Span(text=joined[-1].text + span.text, weight=span.weight)
        elif span.text:
            joined.append(span)
    return tuple(joined)


def encode(prompt: str, tokenizer: ClipTokenizer, *, at_least: int = 1) -> Encoded:
    """Turn a prompt into chunks of tokens.

    Args:
        prompt: Any text, of any length, the empty one included.
        tokenizer: The tokenizer, which also knows the chunk length.
        at_least: Minimum number of chunks; missing ones are empty.
    """
    spans = parse(prompt)
    pieces = [(tokenizer.encode(tokenizer.expand(span.text)), span.weight) for span in spans]
    tokens = list(chain.from_iterable(numbers for numbers, _ in pieces))
    weights = list(chain.from_iterable([weight] * len(numbers) for numbers, weight in pieces))
    room = tokenizer.length - 2
    chunks = max(at_least, -(-len(tokens) // room))
    ids = np.full((chunks, tokenizer.length), tokenizer.padding, dtype=np.int32)
    importance = np.ones((chunks, tokenizer.length), dtype=np.float32)
    for row in range(chunks):
        part = slice(row * room, (row + 1) * room)
        count = len(tokens[part])
        ids[row, : count + 2] = [tokenizer.start, *tokens[part], tokenizer.end]
        importance[row, 1 : count + 1] = weights[part]
    return Encoded(tokens=ids, weights=importance)


def embed(hidden: Floats, weights: Floats) -> Floats:
    """Apply weights to the text encoder's output and concatenate its chunks.

    The result is rescaled to the original mean, so that emphasis on a word does not change the
    strength of the prompt.

    Args:
        hidden: float32 ``[chunks, length, hidden]``.
        weights: float32 ``[chunks, length]``.

    Returns:
        float32 ``[1, chunks * length, hidden]``.
    """
    if not np.all(weights == 1):
        before = float(hidden.mean())
        hidden = hidden * weights[..., None]
        after = float(hidden.mean())
        correction = before / after if after else 0.0
        if 1 / _MOST_CORRECTION < correction < _MOST_CORRECTION:
            hidden = hidden * np.float32(correction)
    return hidden.reshape(1, -1, hidden.shape[-1])

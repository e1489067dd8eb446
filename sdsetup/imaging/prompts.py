"""Encode prompts of any length with weighted words, and combine the chunks' embeddings.

``(word)`` pays 1.1 times the attention, ``[word]`` 1.1 times less, ``(word:1.3)`` 1.3 times; brackets
nest, and a backslash makes one literal. A bracket without a partner is literal too. ``BREAK`` begins a new
chunk.
Source: the notation and its 1.1 are those of the AUTOMATIC1111 web interface.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from conversions.events import Listener, Notice, ignore
from conversions.recipe import PaddedTokens
from sdsetup.errors import UsageError
from sdsetup.imaging.schedulers import Floats
from sdsetup.imaging.tokenizer import PromptTokenizer

_BRACKET_WEIGHT = 1.1
_PIECES = re.compile(r"\\[()\[\]\\]|[()\[\]]|[^\\()\[\]]+|\\")
_NUMBER = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")
# Far more than any word needs; products of more lead to numbers that are not finite.
_MOST_WEIGHT = 100.0
_BREAK = re.compile(r"\bBREAK\b")
# Notation of other programs, which a text encoder would read as plain words.
_FOREIGN = re.compile(
    r"<(?:lora|lyco|hypernet|ti|model):[^<>]*>"
    r"|\bembedding:[\w./\\-]+"
    r"|(?<!\\)\[[^\[\]()]*:\s*\d*\.?\d+\s*\]"  # [from:to:when]
    r"|(?<!\\)\[[^\[\]]*\|[^\[\]]*\]"  # [one|other]
    r"|\{[^{}]*\|[^{}]*\}"
    r"|(?<!\w)__[\w/*-]+__(?!\w)"
    r"|\bAND\b"
)
_MOST_SHOWN = 5
# Means further apart than this say more about a mean close to zero than about the weights.
_MOST_CORRECTION = 4.0


@dataclass(frozen=True, kw_only=True)
class Span:
    """A piece of a prompt.

    Attributes:
        text: Its words.
        weight: How much attention they get; 1 is neutral, and no magnitude is above 100.
        capped: Whether the prompt asks for more than that.
    """

    text: str
    weight: float
    capped: bool = False


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Input of the text encoder for one prompt.

    Attributes:
        tokens: int32 ``[chunks, length]``, each chunk with its own start and end.
        weights: float32 ``[chunks, length]``; start, end and padding are neutral.
    """

    tokens: NDArray[np.int32]
    weights: Floats


def examine(prompt: str, option: str) -> tuple[str, ...]:
    """Look at a prompt before any work.

    Args:
        prompt: Any text.
        option: What it was given as, for messages: ``"the prompt"``.

    Returns:
        What in it will not do what its writer may expect, in sentences.

    Raises:
        UsageError: It is no text that can be encoded.
    """
    _demand_unicode(prompt, option)
    remarks = []
    foreign = list(dict.fromkeys(found[0] for found in _FOREIGN.finditer(prompt)))
    if foreign:
        shown = ", ".join(foreign[:_MOST_SHOWN]) + (" and more" if len(foreign) > _MOST_SHOWN else "")
        remarks.append(f"{option} holds notation that is read as plain words: {shown}.")
    if any(span.capped for span in parse(prompt)):
        remarks.append(f"{option} gives words a weight beyond {_MOST_WEIGHT:g}; they get {_MOST_WEIGHT:g}.")
    return tuple(remarks)


def examine_unweighed(prompt: str, option: str) -> tuple[str, ...]:
    """Look at a prompt for a model that weighs no words.

    Args:
        prompt: Any text.
        option: What it was given as, for messages.

    Returns:
        What in it will not do what its writer may expect, in sentences.
    """
    remarks = []
    if any(span.weight != 1 for span in parse(prompt)):
        remarks.append(f"{option} weighs words with brackets; this model reads them as they are.")
    if _BREAK.search(prompt):
        remarks.append(f"{option} has a BREAK, which this model reads as a word: its prompts have one part.")
    return tuple(remarks)


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
                inner[-1] = replace(inner[-1], text=inner[-1].text[: number.start()])
            spans[start:] = [_weighed(span, factor) for span in inner]
        else:
            literal = piece[1:] if len(piece) == 2 and piece[0] == "\\" else piece
            spans.append(Span(text=literal, weight=1.0))
    joined: list[Span] = []
    for span in spans:
        if joined and (joined[-1].weight, joined[-1].capped) == (span.weight, span.capped):
            joined[-1] = replace(span, text=joined[-1].text + span.text)
        elif span.text:
            joined.append(span)
    return tuple(joined)


def encode(prompt: str, tokenizer: PromptTokenizer, *, at_least: int = 1, length: int = 0) -> Encoded:
    """Turn a prompt into chunks of tokens.

    Args:
        prompt: Any text, of any length, the empty one included.
        tokenizer: Knows the tokens and how many fit into a chunk.
        at_least: Chunks wanted; missing ones hold no word.
        length: Tokens of a chunk; 0 leaves it to the tokenizer.

    Raises:
        UsageError: It is no text that can be encoded.
    """
    _demand_unicode(prompt, "the prompt")
    begin, end = tokenizer.prefix, tokenizer.suffix
    length = length or tokenizer.length
    room = length - len(begin) - len(end)
    rows: list[list[tuple[int, float]]] = []
    for part in _split_at_breaks(parse(prompt)):
        pairs = [
            (number, span.weight) for span in part for number in tokenizer.encode(tokenizer.expand(span.text))
        ]
        rows += [pairs[start : start + room] for start in range(0, max(len(pairs), 1), room)]
    rows += [[]] * (at_least - len(rows))
    ids = np.full((len(rows), length), tokenizer.padding, dtype=np.int32)
    importance = np.ones((len(rows), length), dtype=np.float32)
    for place, pairs in enumerate(rows):
        numbers = [number for number, _ in pairs]
        row = [*begin, *numbers, *end]
        ids[place, : len(row)] = row
        importance[place, len(begin) : len(begin) + len(pairs)] = [weight for _, weight in pairs]
    return Encoded(tokens=ids, weights=importance)


def tokenize(
    text: str,
    tokenizer: PromptTokenizer,
    *,
    length: int,
    multiple: int = 0,
    before: str = "",
    after: str = "",
    listener: Listener = ignore,
) -> PaddedTokens:
    """Turn a text into one row of tokens, without weights; see ``conversions.recipe.PromptEncoder``.

    Args:
        text: Of the prompt.
        tokenizer: Of the text encoder.
        length: The most tokens.
        multiple: Fill up to a multiple of this instead of to ``length``; 0 fills up to it.
        before: What stands before the text.
        after: What stands after it.
        listener: Told when the end of the text is left out, in tokens of the text alone.

    Source: ``padding="max_length", truncation=True`` of transformers' tokenizers.

    Raises:
        UsageError: It is no text that can be encoded.
    """
    _demand_unicode(text, "the prompt")
    begin, end = tokenizer.prefix, tokenizer.suffix
    words = tokenizer.encode(before + text + after)
    room = length - len(begin) - len(end)
    if len(words) > room:
        own = len(tokenizer.encode(text))
        lost = min(own, len(words) - room - len(tokenizer.encode(after)))
        if lost > 0:
            left_out = f"the last {lost} tokens of {own} are left out"
            listener(Notice(text=f"the prompt is longer than this model reads: {left_out}."))
    row = [*begin, *words[:room], *end]
    full = -(-max(len(row), 1) // multiple) * multiple if multiple else length
    used = slice(full - len(row), full) if tokenizer.pads_left else slice(len(row))
    ids = np.full((1, full), tokenizer.padding, dtype=np.int32)
    mask = np.zeros((1, full), dtype=np.int32)
    ids[0, used], mask[0, used] = row, 1
    return PaddedTokens(ids=ids, mask=mask)


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


def _weighed(span: Span, factor: float) -> Span:
    weight = span.weight * factor
    capped = abs(weight) > _MOST_WEIGHT
    return Span(
        text=span.text,
        weight=math.copysign(_MOST_WEIGHT, weight) if capped else weight,
        capped=span.capped or capped,
    )


def _split_at_breaks(spans: tuple[Span, ...]) -> Iterator[list[Span]]:
    """Yield the spans between the BREAKs; a BREAK within brackets leaves the weights as they are."""
    part: list[Span] = []
    for span in spans:
        first, *others = _BREAK.split(span.text)
        part.append(replace(span, text=first))
        for text in others:
            yield part
            part = [replace(span, text=text)]
    yield part


def _demand_unicode(prompt: str, option: str) -> None:
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            "prompt.not_unicode",
            f"{option} is no valid UTF-8: character {error.start + 1} cannot be read.",
            "type it again, or save the file that it comes from as UTF-8.",
        ) from error

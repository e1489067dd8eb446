"""Three hundred odd prompts, the same in every run."""

from __future__ import annotations

import random

from conversions.tokenizers.compare import PROMPTS

_PIECES = [
    "a cat", "DON'T", "they're", "<cat-toy>", "<cat-toy>s", "x<cat-toy>y", "<CAT-TOY>", "sks",
    "SKS", " <new one> ", "<|endoftext|>", "<|startoftext|>", "<|EndOfText|>", "<|endoftext", "!",
    "!!!", "café", "cafe\u0301", "İstanbul", "ÅNGSTRÖM", "ﬁne", "½", "①", "Ⅻ", "naïve", "ß", "ẞ",
    "日本語", "한국어", "한국어", "עברית", "العربية", "ไทย", "हिन्दी", "😀", "👩\u200d👩\u200d👧",
    "🏳️\u200d🌈", "\u200b", "\ufeff", "\u202e", "\x00", "\x07", "\x1b[0m", "\x7f", "\x85", "\u2028",
    "\t", "\n\n", "\r\n", "\u00a0", "\u3000", "     ", "a" * 300, "ab" * 99, "0123456789", "3.14",
    "1e-5", "http://x.y/z?q=1&r=2#s", "(word:1.3)", "[less]", "__init__", "--", "...", "\\", "'",
    "''s", "'S", "\"", "𝕬𝖇𝖈", "𓀀", "\U0010ffff", "\ue000", "z̷͉͝a̶l̵g̵o̷", "Ǆ", "ǆ", "K", "µ", "μ",
    "\u0130", "i̇", "</w>", "Ġ", "Ã©", "##ing", "▁the",
]  # fmt: skip


def odd_prompts(count: int = 300) -> list[str]:
    """Every piece alone, then random rows of pieces."""
    draw = random.Random(16)
    prompts = dict.fromkeys([*PROMPTS, *_PIECES])
    while len(prompts) < count:
        pieces = draw.choices(_PIECES, k=draw.randint(2, 8))
        prompts[draw.choice(["", " ", ", "]).join(pieces)] = None
    return list(prompts)

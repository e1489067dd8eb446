"""Prompts as a package's tokenizers read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conversions.events import Event, Notice
from sdsetup.imaging.package_prompts import PackagePrompts
from sdsetup.runtime.package import open_for_images
from tests.sdsetup import toy_package


def test_a_text_that_is_cut_is_said_to_be(tmp_path: Path) -> None:
    package = open_for_images(toy_package.write(tmp_path / "plain"))
    heard: list[Event] = []
    prompts = PackagePrompts(package=package, length=77, listener=heard.append)
    assert prompts.tokenize("! " * 18, "tokenizer", length=20).ids.shape == (1, 20)
    assert not heard
    assert prompts.tokenize("! " * 21, "tokenizer", length=20).ids.shape == (1, 20)
    assert heard == [
        Notice(text="the prompt is longer than this model reads: the last 3 tokens of 21 are left out.")
    ]


def test_a_notice_counts_a_person_s_own_words(tmp_path: Path) -> None:
    package = open_for_images(toy_package.write(tmp_path / "plain"))
    heard: list[Event] = []
    prompts = PackagePrompts(package=package, length=77, listener=heard.append)

    def cut(count: int, before: str = "? ? ? ", after: str = "") -> list[str]:
        heard.clear()
        text = "! " * count
        found = prompts.tokenize(text, "tokenizer", length=20, before=before, after=after)
        whole = prompts.tokenize(before + text + after, "tokenizer", length=20)
        assert np.array_equal(found.ids, whole.ids)
        return [each.text for each in heard[:-1] if isinstance(each, Notice)]

    said = "the prompt is longer than this model reads: the last {} tokens of {} are left out."
    assert cut(15) == []
    assert cut(16) == [said.format(1, 16)]
    # Two of what stands behind go first, and more than was written is never said to be lost.
    assert cut(17, after=" ? ?") == [said.format(2, 17)]
    assert cut(15, after=" ? ?") == []
    assert cut(2, before="? " * 40) == [said.format(2, 2)]


def test_prompts_are_chunks_with_weights_and_words_of_ones_own(tmp_path: Path) -> None:
    package = open_for_images(toy_package.write(tmp_path / "plain"))
    prompts = PackagePrompts(package=package, length=77, tokens={"tokenizer": ("<cat>",)})
    plain = prompts.encode("! (!:1.5) <cat>", "tokenizer")
    assert plain.tokens.shape == plain.weights.shape == (1, 77)
    start, first, second, cat, end = plain.tokens[0][:5]
    assert first == second
    assert len({start, first, cat, end}) == 4
    assert plain.weights[0][:4].tolist() == [1.0, 1.0, 1.5, 1.0]
    assert prompts.encode("!", "tokenizer", at_least=3).tokens.shape == (3, 77)
    assert prompts.encode("!", "tokenizer", length=10).tokens.shape == (1, 10)
    without = PackagePrompts(package=package, length=12).encode("! (!:1.5) <cat>", "tokenizer")
    assert without.tokens.shape == (1, 12)
    assert without.tokens[0][3] != cat


def test_a_text_is_filled_up_to_a_multiple(tmp_path: Path) -> None:
    package = open_for_images(toy_package.write(tmp_path / "plain"))
    prompts = PackagePrompts(package=package, length=77)
    widths = {
        multiple: prompts.tokenize("! " * 5, "tokenizer", length=20, multiple=multiple).ids.shape[1]
        for multiple in (1, 4, 20)
    }
    assert widths == {1: 7, 4: 8, 20: 20}
    assert prompts.tokenize("! " * 30, "tokenizer", length=20).mask.all()  # nobody listens
    assert prompts.tokenize("! " * 5, "tokenizer", length=20).mask.tolist() == [[1] * 7 + [0] * 13]


def test_chunks_are_joined_with_their_weights(tmp_path: Path) -> None:
    package = open_for_images(toy_package.write(tmp_path / "plain"))
    prompts = PackagePrompts(package=package, length=77)
    encoded = prompts.encode("! " * 80, "tokenizer")
    hidden = np.random.default_rng(1).standard_normal((2, 77, 4)).astype(np.float32)
    assert encoded.tokens.shape == (2, 77)
    np.testing.assert_allclose(prompts.embed(hidden, encoded), hidden.reshape(1, 154, 4), rtol=1e-5)

"""Prompts as a package's tokenizers read them."""

from __future__ import annotations

from pathlib import Path

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

"""CLIP's tokenizer files, against facts of the published ones."""

from __future__ import annotations

import json

from conversions.families.shared.clip_files import tokenizer_files


def test_the_vocabulary_is_the_published_one() -> None:
    files = tokenizer_files("tokenizer")
    numbers = json.loads(files["tokenizer/vocab.json"])
    assert list(numbers.values()) == list(range(49408))
    tokens = list(numbers)
    # Bytes that print come first, in their order; those that do not are letters from Ā on.
    assert "".join(tokens[place] for place in (0, 93, 94, 105, 106, 187, 188, 255)) == "!~¡¬®ÿĀŃ"
    assert [token.removesuffix("</w>") for token in tokens[256:512]] == tokens[:256]
    assert all(token.endswith("</w>") for token in tokens[256:512])
    assert tokens[512:515] == ["in", "th", "an"]
    assert tokens[-2:] == ["<|startoftext|>", "<|endoftext|>"]
    assert files["tokenizer/merges.txt"].decode("utf-8").splitlines()[1] == "i n"


def test_each_encoder_has_its_padding() -> None:
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    for given, padding in (({}, "<|endoftext|>"), ({"padding": "!"}, "!")):
        files = tokenizer_files("tokenizer_2", **given)
        assert json.loads(files["tokenizer_2/special_tokens_map.json"]) == {**special, "pad_token": padding}
        assert json.loads(files["tokenizer_2/tokenizer_config.json"]) == {
            **special,
            "pad_token": padding,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": 77,
            "tokenizer_class": "CLIPTokenizer",
        }

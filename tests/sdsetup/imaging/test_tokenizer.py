import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdsetup.errors import SetupError
from sdsetup.imaging.tokenizer import PromptTokenizer
from tests.sdsetup.imaging import clip_vocabulary


def added(content, normalized):
    return {
        "__type": "AddedToken",
        "content": content,
        "lstrip": False,
        "normalized": normalized,
        "rstrip": False,
        "single_word": False,
    }


SD14 = {
    "bos_token": added("<|startoftext|>", True),
    "eos_token": added("<|endoftext|>", True),
    "unk_token": added("<|endoftext|>", True),
    "pad_token": "<|endoftext|>",
    "model_max_length": 77,
    "tokenizer_class": "CLIPTokenizer",
}
SD21 = SD14 | {"pad_token": "!"}
ODD = [
    "",
    " ",
    "a photograph of an astronaut riding a horse",
    "  Two   spaces\tand\nlines  ",
    "DON'T they're I'll we've she'd it's 'S",
    "100 cats, 3.14 and ½",
    "hello!!! (what?) [no] {yes} <|endoftext|> <|STARTOFTEXT|> x<|endoftext|>y",
    "!",
    "é vs e\u0301, naïve café, ÅNGSTRÖM, İstanbul, ß",
    "красный квадрат, 赤い四角, 月の上の馬, عربى, 😀👩‍👩‍👧",
    "zero\u200bwidth, nbsp\u00a0here, \u3000wide, \x00 and \x7f",
    "a_b__c --- ... --steps=5 http://x.y/z?q=1",
    "supercalifragilistic" * 9,
]


@pytest.fixture(scope="module", params=["files", "whole", "plain", "sd21"])
def pair(request, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    config = {"files": SD14, "whole": SD14, "plain": None, "sd21": SD21}[request.param]
    folder = tmp_path_factory.mktemp("tokenizer")
    clip_vocabulary.write(folder, whole=request.param == "whole", config=config)
    return PromptTokenizer(folder=folder), transformers.CLIPTokenizer.from_pretrained(folder)


def theirs(tokenizer, text):
    return tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids


def ours(tokenizer, text):
    tokens = [*tokenizer.prefix, *tokenizer.encode(text)[:75], *tokenizer.suffix]
    return tokens + [tokenizer.padding] * (77 - len(tokens))


@pytest.mark.torch
@pytest.mark.parametrize("text", ODD)
def test_odd_texts_are_the_numbers_of_transformers(pair, text):
    mine, reference = pair
    assert ours(mine, text) == theirs(reference, text)


@pytest.mark.torch
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_any_text_is_the_numbers_of_transformers(pair, text):
    mine, reference = pair
    assert ours(mine, text) == theirs(reference, text)


def test_a_missing_vocabulary_is_one_clear_message(tmp_path):
    with pytest.raises(SetupError, match=r"There is no tokenizer") as caught:
        PromptTokenizer(folder=tmp_path).encode("a cat")
    assert caught.value.code == "tokenizer.missing"
    assert caught.value.hint == "Convert the checkpoint again."


def test_tokens_are_added_to_those_of_the_files(tmp_path):
    clip_vocabulary.write(tmp_path)
    plain = PromptTokenizer(folder=tmp_path)
    assert (plain.length, plain.tokens, plain.pads_left) == (77, (), False)
    more = PromptTokenizer(folder=tmp_path, tokens=("<toy>", "<toy>_1"))
    first = max(plain.encode("<toy>")) + 1
    assert plain.expand("a <toy>") == "a <toy>"
    assert more.expand("a <toy>") == "a <toy> <toy>_1"
    assert plain.encode("cat") == more.encode("cat")
    assert len(set(more.encode("<toy> <toy>_1"))) == 2
    assert min(more.encode("<toy> <toy>_1")) >= first
    assert (more.prefix, more.suffix, more.padding) == (plain.prefix, plain.suffix, plain.padding)


def test_a_torn_vocabulary_is_one_clear_message(tmp_path):
    clip_vocabulary.write(tmp_path)
    text = (tmp_path / "vocab.json").read_text(encoding="utf-8")
    (tmp_path / "vocab.json").write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(SetupError, match=r"vocab\.json is not valid JSON"):
        PromptTokenizer(folder=tmp_path).encode("a cat")


@pytest.mark.parametrize("line", ["zz zz", "one two three", "alone"])
def test_unusable_merges_are_one_clear_message(tmp_path, line):
    clip_vocabulary.write(tmp_path)
    with (tmp_path / "merges.txt").open("a", encoding="utf-8") as merges:
        merges.write(line + "\n")
    with pytest.raises(SetupError, match="cannot be used"):
        PromptTokenizer(folder=tmp_path).encode("a cat")

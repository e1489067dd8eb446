"""CLIP's tokens are those of transformers, whichever files speak of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversions.errors import ConversionError
from conversions.families.shared.clip_files import tokenizer_files
from conversions.tokenizers import Tokenizer, open_tokenizer
from conversions.tokenizers.compare import compare_tokenizers
from sdsetup.demo import checkpoint_path
from tests.conversions.tokenizers.odd_prompts import odd_prompts
from tests.sdsetup.imaging import clip_vocabulary

DEMO = checkpoint_path() / "tokenizer"
END = "<|endoftext|>"
BASE = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "pad_token": END}


def added(content: str, number: int | None = None, **fields: Any) -> dict[str, Any]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False}
    return {"content": content, **plain, **({} if number is None else {"id": number}), **fields}


def as_object(content: str, **fields: Any) -> dict[str, Any]:
    described = added(content, **fields)
    described.pop("special")
    return {"__type": "AddedToken", **described}


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), "utf-8")


def size_of(folder: Path) -> int:
    return len(json.loads((folder / "vocab.json").read_text("utf-8")))


def with_config(**changes: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        clip_vocabulary.write(folder, config={**BASE, **changes})

    return make


def no_config(folder: Path) -> None:
    clip_vocabulary.write(folder)


def whole(*tokens: dict[str, Any], padding: str = END) -> Callable[[Path], None]:
    """One tokenizer.json; the ids of its added tokens follow the vocabulary's."""

    def make(folder: Path) -> None:
        clip_vocabulary.write(folder, whole=True, config={**BASE, "pad_token": padding})
        document = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        first = len(document["model"]["vocab"])
        document["added_tokens"] = [{**each, "id": first + i} for i, each in enumerate(tokens)]
        write_json(folder / "tokenizer.json", document)

    return make


def added_tokens_file(*names: str, gap: int = 0, **changes: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        clip_vocabulary.write(folder, config={**BASE, **changes})
        first = size_of(folder) + gap
        write_json(folder / "added_tokens.json", {name: first + i for i, name in enumerate(names)})

    return make


def decoder(folder: Path) -> None:
    """``added_tokens_decoder``, as transformers 4.34 to 4.5x saved it; the legacy files must not count."""
    clip_vocabulary.write(folder, config=BASE)
    first = size_of(folder)
    table = {
        str(first - 2): added("<|startoftext|>", normalized=True, special=True),
        str(first - 1): added(END, special=True),
        str(first): added("<cat-toy>"),
        str(first + 1): added("sks", normalized=True, single_word=True),
        str(first + 2): added("<new one>", lstrip=True, rstrip=True),
    }
    write_json(folder / "tokenizer_config.json", {**BASE, "added_tokens_decoder": table})
    write_json(folder / "added_tokens.json", {"horse": first + 9})
    write_json(folder / "special_tokens_map.json", {"pad_token": "!"})


def special_map(folder: Path) -> None:
    clip_vocabulary.write(folder, config=BASE)
    described = {"content": END, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    write_json(
        folder / "special_tokens_map.json",
        {"eos_token": described, "unk_token": described, "pad_token": "!", "bos_token": "<|startoftext|>"},
    )


def special_map_with(more: dict[str, Any], *names: str, **config: Any) -> Callable[[Path], None]:
    """Further special tokens in special_tokens_map.json, and tokens that added_tokens.json names."""

    def make(folder: Path) -> None:
        added_tokens_file(*names, **config)(folder)
        write_json(folder / "special_tokens_map.json", more)

    return make


def with_marks(folder: Path) -> None:
    """All files with a byte order mark, and merges with Windows' line ends."""
    added_tokens_file("<cat-toy>")(folder)
    for path in folder.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))


MADE: dict[str, Callable[[Path], None]] = {
    "no configuration": no_config,
    "vocabulary and merges": with_config(),
    "padded with !": with_config(pad_token="!"),  # noqa: S106
    "objects, normalized": with_config(
        bos_token=as_object("<|startoftext|>", normalized=True),
        eos_token=as_object(END, normalized=True),
        unk_token=as_object(END, normalized=True),
    ),
    "additional special tokens": with_config(additional_special_tokens=["<cat-toy>", "sks"]),
    "extra special tokens, named": with_config(extra_special_tokens={"image_token": "<cat-toy>"}),
    "a token of its own role": with_config(image_token="<cat-toy>"),  # noqa: S106
    "special tokens are split": with_config(split_special_tokens=True),
    "special_tokens_map.json": special_map,
    "special_tokens_map.json, additional": special_map_with(
        {"additional_special_tokens": ["<cat-toy>", "sks"]}
    ),
    "special_tokens_map.json, additional and added": special_map_with(
        {"additional_special_tokens": ["sks", "<cat-toy>"]}, "<cat-toy>"
    ),
    "special_tokens_map.json, extra in both": special_map_with(
        {"extra_special_tokens": ["<cat-toy>"]}, extra_special_tokens=["sks"]
    ),
    "added_tokens.json": added_tokens_file("<cat-toy>", "sks"),
    "added_tokens.json, several vectors": added_tokens_file("<cat-toy>", "<cat-toy>_1", "<cat-toy>_2"),
    "added_tokens.json, ids with a gap": added_tokens_file("<cat-toy>", "sks", gap=7),
    "added_tokens.json, also special": added_tokens_file(
        "<cat-toy>", additional_special_tokens=["<cat-toy>"]
    ),
    "added_tokens.json, upper case": added_tokens_file("<Cat-Toy>", "SKS"),
    "added_tokens.json, words of the vocabulary": added_tokens_file("a</w>", "cat"),
    "added_tokens_decoder": decoder,
    "tokenizer.json": whole(),
    "tokenizer.json, added": whole(added("<cat-toy>"), added("sks", single_word=True, normalized=True)),
    "tokenizer.json, stripping": whole(added("<new one>", lstrip=True, rstrip=True), padding="!"),
    "tokenizer.json, special": whole(added("<cat-toy>", special=True)),
}


@pytest.fixture(scope="module", params=[*MADE, "demo"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    transformers = pytest.importorskip("transformers")
    folder = DEMO
    if request.param != "demo":
        folder = tmp_path_factory.mktemp("tokenizer")
        MADE[request.param](folder)
    return open_tokenizer(folder), transformers.CLIPTokenizer.from_pretrained(folder)


def ours(tokenizer: Tokenizer, text: str) -> list[int]:
    ids = [*tokenizer.prefix, *tokenizer.encode(text)[: tokenizer.length - 2], *tokenizer.suffix]
    return ids + [tokenizer.padding] * (tokenizer.length - len(ids))


def theirs(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
    return found


@pytest.mark.torch
def test_three_hundred_odd_prompts_are_the_ids_of_transformers(pair: tuple[Tokenizer, Any]) -> None:
    mine, reference = pair
    prompts = odd_prompts()
    assert len(prompts) >= 300
    assert [text for text in prompts if ours(mine, text) != theirs(reference, text)] == []
    assert mine.padding == reference.pad_token_id
    assert mine.prefix + mine.suffix == (reference.bos_token_id, reference.eos_token_id)
    assert mine.size == max(reference.get_vocab().values()) + 1


@pytest.mark.torch
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.text(max_size=20) | st.sampled_from(["<cat-toy>", "sks", END])).map("".join))
def test_any_text_is_the_ids_of_transformers(pair: tuple[Tokenizer, Any], text: str) -> None:
    mine, reference = pair
    assert ours(mine, text) == theirs(reference, text)


@pytest.mark.parametrize("name", ["model_max_length", "max_len"])
def test_a_length_is_taken_up_to_what_the_encoder_has_places_for(name: str, tmp_path: Path) -> None:
    def length(given: object) -> int:
        clip_vocabulary.write(tmp_path, config={"tokenizer_class": "CLIPTokenizer", name: given})
        return open_tokenizer(tmp_path).length

    assert [length(good) for good in (3, 20, 77, 78, 10**30, 20.0)] == [3, 20, 77, 77, 77, 20]
    assert length(None) == 77
    for broken in (2, 0, -1, "20", True):
        with pytest.raises(ConversionError, match="its model_max_length is") as caught:
            length(broken)
        assert caught.value.code == "tokenizer.broken"


def test_a_piece_that_the_vocabulary_lacks_is_unknown_each_time(tmp_path: Path) -> None:
    clip_vocabulary.write(tmp_path, config={**BASE, "unk_token": "!"})
    vocabulary = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    unknown = vocabulary["!"]
    kept = {word: number for word, number in vocabulary.items() if word not in ("~", "~</w>")}
    write_json(tmp_path / "vocab.json", kept)
    tokenizer = open_tokenizer(tmp_path)
    assert list(tokenizer.encode("~~~")) == [unknown] * 3
    assert list(tokenizer.encode("~ ~")) == [unknown] * 2


def test_an_added_token_is_one_token(tmp_path: Path) -> None:
    added_tokens_file("<cat-toy>")(tmp_path)
    tokenizer = open_tokenizer(tmp_path)
    assert len(tokenizer.encode("<cat-toy>")) == 1
    assert tokenizer.added_tokens == ("<cat-toy>",)
    assert tokenizer.size == size_of(tmp_path) + 1


@pytest.mark.torch
@pytest.mark.parametrize(
    "text", ["a <cat-toy> here", "<cat-toy>", "a cat", "<cat-toy>_1 alone", "<cat-toy><cat-toy>"]
)
def test_several_vectors_are_written_out_as_diffusers_does(text: str, tmp_path: Path) -> None:
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
    from transformers import CLIPTokenizer

    added_tokens_file("<cat-toy>", "<cat-toy>_1", "<cat-toy>_2")(tmp_path)
    reference = CLIPTokenizer.from_pretrained(tmp_path)
    expected = TextualInversionLoaderMixin().maybe_convert_prompt(text, reference)
    assert open_tokenizer(tmp_path).expand(text) == expected


def test_byte_order_marks_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    added_tokens_file("<cat-toy>")(tmp_path / "plain")
    with_marks(tmp_path / "marked")
    plain, marked = open_tokenizer(tmp_path / "plain"), open_tokenizer(tmp_path / "marked")
    assert [marked.encode(text) for text in odd_prompts()] == [plain.encode(text) for text in odd_prompts()]


@pytest.mark.torch
@pytest.mark.parametrize("padding", ["<|endoftext|>", "!"])
def test_the_tokenizer_that_ships_gives_transformers_ids(tmp_path: Path, padding: str) -> None:
    for name, content in tokenizer_files("tokenizer", padding=padding).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    tokenizer = open_tokenizer(tmp_path / "tokenizer")
    assert tokenizer.encode("a photo of a cat") == (320, 1125, 539, 320, 2368)
    assert (tokenizer.prefix, tokenizer.suffix, tokenizer.length) == ((49406,), (49407,), 77)
    assert tokenizer.padding == (0 if padding == "!" else 49407)
    assert compare_tokenizers(tmp_path / "tokenizer") == []

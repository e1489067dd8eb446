"""Which tokens stand beside a vocabulary, in which order, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models

from conversions.errors import ConversionError
from conversions.tokenizers.added_tokens import AddedTokens, ids_of_roles, read_added_tokens
from conversions.tokenizers.files import TokenizerFiles

DEFAULTS = {"bos_token": "<s>", "pad_token": "<p>"}


def files(**content: Any) -> TokenizerFiles:
    named = {f"{name}.json": json.dumps(value).encode() for name, value in content.items()}
    return TokenizerFiles(label="here", names=frozenset(named), content=named)


def read(defaults: dict[str, str] | None = None, **content: Any) -> AddedTokens:
    return read_added_tokens(files(**content), DEFAULTS if defaults is None else defaults)


def names(found: AddedTokens) -> list[tuple[str, bool]]:
    """The tokens in their order, each with whether it is special."""
    return [(token.content, token.special) for token in found.tokens]


def token(content: str, **flags: Any) -> dict[str, Any]:
    return {"content": content, **flags}


def test_without_files_the_class_s_own_tokens_count() -> None:
    found = read()
    assert found.roles == DEFAULTS
    assert names(found) == [("<s>", True), ("<p>", True)]
    assert read({}) == AddedTokens(roles={}, tokens=())


def test_the_configuration_names_roles_before_the_defaults() -> None:
    found = read(
        tokenizer_config={"pad_token": "!", "eos_token": token("</s>", lstrip=True), "unk_token": None}
    )
    assert found.roles == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "!"}
    assert names(found) == [("<s>", True), ("</s>", True), ("!", True)]
    assert found.tokens[1].lstrip is True


def test_declared_tokens_come_first_by_their_ids() -> None:
    declared = {
        "12": token("<b>"),
        "9": token("<a>", special=True, rstrip=True, normalized=False),
        "101": token("<p>", special=False),
    }
    found = read(tokenizer_config={"added_tokens_decoder": declared})
    assert names(found) == [("<a>", True), ("<b>", False), ("<p>", True), ("<s>", True)]
    assert (found.tokens[0].rstrip, found.tokens[0].normalized) == (True, False)
    # What other files say does not count then.
    others = {"added_tokens": {"<x>": 5}, "special_tokens_map": {"pad_token": "<y>"}}
    assert names(read(tokenizer_config={"added_tokens_decoder": declared}, **others)) == names(found)


def test_older_files_declare_tokens_in_several_places() -> None:
    found = read(
        special_tokens_map={"bos_token": token("<s>"), "additional_special_tokens": ["<e>", "<x>"]},
        added_tokens={"<cat>": 11, "<s>": 10, "<e>": 12},
        tokenizer={"added_tokens": [{"id": 9, **token("<w>", special=True, vocab="x")}]},
    )
    assert names(found) == [
        *(("<w>", True), ("<s>", True), ("<cat>", False), ("<e>", False), ("<p>", True), ("<x>", True)),
    ]
    flags = {each.content: each.normalized for each in found.tokens}
    assert (flags["<cat>"], flags["<s>"], flags["<e>"]) == (True, False, True)
    assert found.roles == DEFAULTS


def test_a_map_of_special_tokens_counts_before_the_configuration() -> None:
    found = read(tokenizer_config={"bos_token": "<1>"}, special_tokens_map={"bos_token": "<2>"})
    assert found.roles == {**DEFAULTS, "bos_token": "<2>"}


@pytest.mark.parametrize("name", ["additional_special_tokens", "extra_special_tokens"])
def test_further_special_tokens_come_last_and_once(name: str) -> None:
    config = {"added_tokens_decoder": {"3": token("<b>")}, name: ["<a>", token("<c>"), "<b>", "<s>"]}
    found = read(tokenizer_config=config)
    assert names(found) == [
        *(("<b>", False), ("<s>", True), ("<p>", True), ("<a>", True)),
        *(("<c>", False), ("<s>", True)),
    ]


def test_further_roles_are_those_of_the_configuration() -> None:
    config = {"image_token": "<i>", "video_token": 3, "extra_special_tokens": {"box_token": token("<x>")}}
    found = read(tokenizer_config=config)
    assert found.roles == {**DEFAULTS, "image_token": "<i>", "box_token": "<x>"}
    assert names(found) == [("<s>", True), ("<p>", True), ("<i>", True), ("<x>", True)]


def test_both_names_of_further_tokens_are_not_mixed() -> None:
    config = {"additional_special_tokens": ["<a>"], "extra_special_tokens": ["<b>"]}
    assert [each for each, _ in names(read(tokenizer_config=config))][2:] == ["<b>"]


@pytest.mark.parametrize(
    ("config", "more", "extra"),
    [
        ({}, {"extra_special_tokens": ["<a>"]}, ["<a>"]),
        ({}, {"additional_special_tokens": ["<a>"]}, ["<a>"]),
        (
            {"extra_special_tokens": ["<a>", "<b>"]},
            {"extra_special_tokens": ["<c>", "<a>"]},
            ["<a>", "<b>", "<c>"],
        ),
        (
            {"additional_special_tokens": ["<a>"]},
            {"extra_special_tokens": ["<c>"]},
            ["<a>", "<c>"],
        ),
        ({"extra_special_tokens": ["<a>"]}, {"additional_special_tokens": ["<c>"]}, ["<a>"]),
        ({"extra_special_tokens": ["<a>"]}, {}, ["<a>"]),
    ],
)
def test_both_files_may_name_further_special_tokens(
    config: dict[str, Any], more: dict[str, Any], extra: list[str]
) -> None:
    found = read(tokenizer_config=config, special_tokens_map=more)
    assert [each for each, _ in names(found)][2:] == extra
    declared = read(tokenizer_config=config, special_tokens_map=more, added_tokens={"<a>": 3})
    special = {**dict(names(declared))}["<a>"]
    assert special is ("additional_special_tokens" not in more or "extra_special_tokens" in config)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"tokenizer_config": {"added_tokens_decoder": [1]}}, "describes its added tokens as [1]"),
        ({"tokenizer_config": {"added_tokens_decoder": {"1": "<a>"}}}, "describes its added tokens as '<a>'"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": token("a")}}}, "added token has the id 'x'"),
        ({"tokenizer_config": {"added_tokens_decoder": {"-1": token("a")}}}, "added token has the id '-1'"),
        ({"tokenizer_config": {"added_tokens_decoder": {"1": {}}}}, "describes a token as {}"),
        ({"tokenizer_config": {"bos_token": {"content": 3}}}, "describes a token as {'content': 3}"),
        ({"tokenizer_config": {"bos_token": token("a", lstrip=1)}}, "describes a token as {'content': 'a'"),
        ({"tokenizer_config": {"bos_token": 3}}, "describes its added tokens as 3"),
        ({"tokenizer_config": {"extra_special_tokens": "a"}}, "lists its added tokens as 'a'"),
        ({"added_tokens": {"<a>": True}}, "added token has the id True"),
        ({"added_tokens": {"<a>": "1234567890"}}, "added token has the id '1234567890'"),
        ({"added_tokens": {"<a>": "²"}}, "added token has the id '²'"),
        ({"added_tokens": {"<a>": 1.5}}, "added token has the id 1.5"),
        ({"tokenizer": {"added_tokens": 3}}, "lists its added tokens as 3"),
        ({"tokenizer": {"added_tokens": ["<a>"]}}, "describes its added tokens as '<a>'"),
        ({"tokenizer": {"added_tokens": [token("<a>")]}}, "added token has the id None"),
    ],
)
def test_what_cannot_be_understood_is_named(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ConversionError) as caught:
        read(**content)
    assert caught.value.code == "tokenizer.broken"
    assert said in caught.value.message


def test_an_id_may_have_nine_digits() -> None:
    assert names(read({}, added_tokens={"<a>": 999_999_999, "<b>": "5"})) == [("<b>", False), ("<a>", False)]


def test_roles_have_the_ids_of_their_tokens() -> None:
    backend = Tokenizer(models.BPE({"a": 0, "<s>": 1}, []))
    added = AddedTokens(roles={"bos_token": "<s>", "pad_token": "a", "eos_token": "<e>"}, tokens=())
    assert ids_of_roles(files(), backend, added, "pad_token", "bos_token", "pad_token") == (0, 1, 0)
    assert ids_of_roles(files(), backend, added) == ()
    for role, said in (("unk_token", "it has no unk_token"), ("eos_token", "its own eos_token '<e>'")):
        with pytest.raises(ConversionError, match=said) as caught:
            ids_of_roles(files(), backend, added, "bos_token", role)
        assert caught.value.code == "tokenizer.broken"
    backend.add_tokens([AddedToken("<e>")])
    assert ids_of_roles(files(), backend, added, "eos_token") == (2,)


def test_every_flag_of_a_token_is_read() -> None:
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for name in flags:
        for value in (True, False):
            declared = {"3": token("<a>", **{name: value})}
            (found,) = read({}, tokenizer_config={"added_tokens_decoder": declared}).tokens
            assert getattr(found, name) is value, name
    (found,) = read({}, tokenizer_config={"added_tokens_decoder": {"3": token("<a>", unheard="x")}}).tokens
    assert found.content == "<a>"


@pytest.mark.parametrize("value", [5, [1], {"text": "<i>"}, {"content": 5}])
def test_a_named_special_token_that_is_none_is_broken(value: object) -> None:
    with pytest.raises(ConversionError, match="it describes") as caught:
        read(tokenizer_config={"extra_special_tokens": {"image_token": value}})
    assert caught.value.code == "tokenizer.broken"

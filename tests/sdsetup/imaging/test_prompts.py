import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversions.events import Notice
from sdsetup.errors import UsageError
from sdsetup.imaging.prompts import embed, encode, examine, examine_unweighed, parse, tokenize
from sdsetup.imaging.tokenizer import PromptTokenizer
from tests.sdsetup.imaging import clip_vocabulary


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return PromptTokenizer(folder=clip_vocabulary.write(tmp_path_factory.mktemp("tokenizer")))


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("", []),
        ("a red cat", [("a red cat", 1)]),
        ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
        ("a ((red)) cat", [("a ", 1), ("red", 1.21), (" cat", 1)]),
        ("a [red] cat", [("a ", 1), ("red", 1 / 1.1), (" cat", 1)]),
        ("a (red:1.3) cat", [("a ", 1), ("red", 1.3), (" cat", 1)]),
        ("(a [red] cat:2)", [("a ", 2), ("red", 2 / 1.1), (" cat", 2)]),
        ("(red: 0.5 )(blue:.5)", [("redblue", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        (r"a \(red\) \[cat\] \\", [("a (red) [cat] \\", 1)]),
        (r"a\b", [("a\\b", 1)]),
        ("a (red cat", [("a (red cat", 1)]),
        ("a red) cat]", [("a red) cat]", 1)]),
        ("(a ] b)", [("a ] b", 1.1)]),
        ("(red:blue)", [("red:blue", 1.1)]),
        ("()", []),
        ("(:1.5)", []),
        ("note: 5", [("note: 5", 1)]),
    ],
)
def test_weights_are_read(prompt, spans):
    parsed = parse(prompt)
    assert [span.text for span in parsed] == [text for text, _ in spans]
    assert [span.weight for span in parsed] == pytest.approx([weight for _, weight in spans])


@given(st.text(alphabet="ab ()[]:1.\\", max_size=30))
def test_any_bracketing_is_read_without_failing(prompt):
    parsed = parse(prompt)
    assert all(span.text for span in parsed)
    assert len("".join(span.text for span in parsed)) <= len(prompt)


def test_a_short_prompt_is_one_padded_chunk(tokenizer):
    encoded = encode("a horse", tokenizer)
    words = tokenizer.encode("a horse")
    expected = [*tokenizer.prefix, *words, *tokenizer.suffix]
    assert encoded.tokens.shape == (1, 77)
    assert encoded.tokens.dtype == np.int32
    assert encoded.tokens[0, : len(expected)].tolist() == expected
    assert set(encoded.tokens[0, len(expected) :].tolist()) <= {tokenizer.padding}
    assert np.all(encoded.weights == 1)


@pytest.mark.parametrize(("words", "chunks"), [(0, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_a_long_prompt_is_cut_into_chunks_with_their_own_start_and_end(tokenizer, words, chunks):
    encoded = encode("! " * words, tokenizer)
    assert encoded.tokens.shape == (chunks, 77)
    assert np.all(encoded.tokens[:, 0] == tokenizer.prefix[0])
    assert all(tokenizer.suffix[0] in row for row in encoded.tokens.tolist())
    assert np.count_nonzero(encoded.tokens == tokenizer.encode("!")[0]) == words


def test_missing_chunks_hold_no_word(tokenizer):
    encoded = encode("a horse", tokenizer, at_least=2)
    assert encoded.tokens[1].tolist() == encode("", tokenizer).tokens[0].tolist()


def test_weights_lie_on_their_words_alone(tokenizer):
    encoded = encode("a (red:1.5) horse", tokenizer)
    start = 1 + len(tokenizer.encode("a "))
    end = start + len(tokenizer.encode("red"))
    expected = np.ones(77, dtype=np.float32)
    expected[start:end] = 1.5
    assert encoded.weights[0].tolist() == expected.tolist()
    assert encoded.tokens.tolist() == encode("a red horse", tokenizer).tokens.tolist()


def test_neutral_weights_change_nothing():
    hidden = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    joined = embed(hidden, np.ones((2, 3), dtype=np.float32))
    assert joined.tolist() == hidden.reshape(1, 6, 4).tolist()


def test_weighted_words_grow_against_the_rest_and_the_mean_stays():
    hidden = np.random.default_rng(0).normal(0.3, 1, (1, 5, 8)).astype(np.float32)
    weights = np.array([[1, 1, 1.5, 1, 1]], dtype=np.float32)
    joined = embed(hidden, weights)
    assert joined.mean() == pytest.approx(hidden.mean(), rel=1e-5)
    ratios = (joined / hidden)[0]
    np.testing.assert_allclose(ratios[2] / ratios[0], 1.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("weight", "mean"),
    [(3.9, 1.0), (0.26, 1.0), (4.0, 4.0), (0.25, 0.25), (5.0, 5.0), (-2.0, -2.0), (0.0, 0.0)],
)
def test_the_mean_stays_where_weights_move_it_less_than_fourfold(weight, mean):
    weights = np.full((1, 3), weight, dtype=np.float32)
    joined = embed(np.ones((1, 3, 2), np.float32), weights)
    np.testing.assert_allclose(joined, np.full((1, 3, 2), mean), rtol=1e-6)


def test_a_text_is_cut_or_filled_up_and_the_cut_is_said(tokenizer):
    heard = []
    words = tokenizer.encode("a horse a horse")
    begin, end = tokenizer.prefix, tokenizer.suffix
    whole = len(begin) + len(words) + len(end)
    for length in (whole, whole + 3):
        found = tokenize("a horse a horse", tokenizer, length=length, listener=heard.append)
        filling = length - whole
        assert found.ids.tolist() == [[*begin, *words, *end, *[tokenizer.padding] * filling]]
        assert found.mask.tolist() == [[1] * whole + [0] * filling]
        assert not heard
    cut = tokenize("a horse a horse", tokenizer, length=whole - 1, listener=heard.append)
    assert cut.ids.tolist() == [[*begin, *words[:-1], *end]]
    assert cut.mask.tolist() == [[1] * (whole - 1)]
    last = f"the last 1 tokens of {len(words)} are left out"
    assert heard == [Notice(text=f"the prompt is longer than this model reads: {last}.")]
    for multiple in (1, 5, whole, whole + 1):
        filled = tokenize("a horse a horse", tokenizer, length=99, multiple=multiple)
        assert filled.ids.shape[1] == -(-whole // multiple) * multiple
        assert filled.mask.sum() == whole


def test_a_mean_of_almost_zero_does_not_blow_the_embedding_up():
    hidden = np.array([[[1.0, -1.0], [2.0, -2.0], [0.001, 0.0]]], dtype=np.float32)
    joined = embed(hidden, np.array([[1, 1, -1]], dtype=np.float32))
    assert np.abs(joined).max() <= 2


def test_break_begins_a_new_chunk_and_is_no_word(tokenizer):
    encoded = encode("a red horse BREAK a house", tokenizer)
    assert encoded.tokens.shape == (2, 77)
    assert encoded.tokens[0].tolist() == encode("a red horse ", tokenizer).tokens[0].tolist()
    assert encoded.tokens[1].tolist() == encode(" a house", tokenizer).tokens[0].tolist()
    assert encode("BREAKFAST break", tokenizer).tokens.shape == (1, 77)


def test_break_within_brackets_keeps_their_weight(tokenizer):
    encoded = encode("(red BREAK horse:1.5)", tokenizer)
    assert encoded.tokens.shape[0] == 2
    assert [row.max() for row in encoded.weights] == [1.5, 1.5]


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a cat <lora:film grain:0.8>", "<lora:film grain:0.8>"),
        ("a cat <hypernet:x:1>", "<hypernet:x:1>"),
        ("embedding:easynegative, cat", "embedding:easynegative"),
        ("a [cat:dog:0.3] sits", "[cat:dog:0.3]"),
        ("a [dog:0.5] sits", "[dog:0.5]"),
        ("a [cat::0.5] sits", "[cat::0.5]"),
        ("a [cat|dog]", "[cat|dog]"),
        ("a {red|blue} cat", "{red|blue}"),
        ("a __colour__ cat", "__colour__"),
        ("a cat AND a dog", "AND"),
    ],
)
def test_notation_of_other_programs_is_named_once(prompt, shown):
    (remark,) = examine(f"{prompt}, {prompt}", "the prompt")
    assert remark.count(shown) == 1
    assert "plain words" in remark


@pytest.mark.parametrize(
    "prompt",
    [
        *("", "a (red:1.3) [cat] and a dog", r"\[cat:dog:0.3\]", "BREAK", "ratio 3:2, at 5:30", "AND1"),
        *("<cat-toy> on a table", "a | b", "snake__case", "an image: [soft light]"),
    ],
)
def test_what_is_understood_is_not_remarked_on(prompt):
    assert examine(prompt, "the prompt") == ()


@pytest.mark.parametrize(
    "prompt", ["(" * 3000 + "cat" + ")" * 3000, "(cat:999999999)", "(cat:-1e9)(dog:-99999)"]
)
def test_weights_are_bounded(tokenizer, prompt):
    with np.errstate(all="raise"):
        encoded = encode(prompt, tokenizer)
        embedded = embed(np.ones((*encoded.tokens.shape, 4), np.float32), encoded.weights)
    assert np.abs(encoded.weights).max() == 100
    assert np.isfinite(embedded).all()
    assert "weight beyond 100" in " ".join(examine(prompt, "the prompt"))


@pytest.mark.parametrize(
    "prompt", ["[" * 3000 + "cat" + "]" * 3000, "(" * 3000 + "cat", "([" * 3000, ")]" * 3000]
)
def test_thousands_of_brackets_are_read(tokenizer, prompt):
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(encode(prompt, tokenizer).weights).all()
    assert examine(prompt, "the prompt") == ()


@pytest.mark.parametrize("prompt", ["caf\udce9", "\ud800", "a" * 100 + "\udfff"])
def test_bytes_that_are_no_utf8_are_refused(tokenizer, prompt):
    with pytest.raises(UsageError, match="no valid UTF-8"):
        encode(prompt, tokenizer)
    with pytest.raises(UsageError, match="the prompt is no valid UTF-8"):
        tokenize(prompt, tokenizer, length=20)
    with pytest.raises(UsageError, match="negative prompt is no valid UTF-8"):
        examine(prompt, "the negative prompt")


@pytest.mark.parametrize(
    ("prompt", "remarks"), [("a (red:1.3) horse", 1), ("[a] horse", 1), ("a horse :)", 0)]
)
def test_brackets_are_remarked_on_where_they_weigh_nothing(prompt: str, remarks: int) -> None:
    assert len(examine_unweighed(prompt, "the prompt")) == remarks


def test_a_model_without_parts_of_prompts_says_that_a_break_is_a_word() -> None:
    (said,) = examine_unweighed("a cat BREAK a dog", "the prompt")
    assert "BREAK" in said
    assert len(examine_unweighed("a (cat:1.2) BREAK a dog", "the prompt")) == 2
    assert examine_unweighed("a BREAKfast", "the prompt") == ()

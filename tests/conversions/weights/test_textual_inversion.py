"""Files of textual inversion: their forms, and what is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from conversions.errors import ConversionError
from conversions.weights.textual_inversion import read_embeddings, table_for

RANDOM = np.random.default_rng(11)


def vectors(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


def saved(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("form", ["emb_params", "*", "string_to_param.*"])
def test_a_form_without_a_token_is_called_as_its_file(form: str, tmp_path: Path) -> None:
    table = vectors(3, 8, dtype=np.float16)
    path = saved(tmp_path / "cat.safetensors", {form: table})
    found = read_embeddings(path)
    assert (found.path, found.token) == (path, "cat")
    assert found.tokens == ("cat", "cat_1", "cat_2")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(found.tables) == [8]
    assert found.tables[8].dtype == np.float32
    np.testing.assert_array_equal(found.tables[8], table)


def test_the_token_is_the_only_key_of_diffusers_form(tmp_path: Path) -> None:
    vector = vectors(8)
    found = read_embeddings(saved(tmp_path / "file.safetensors", {"<cat>": vector}))
    assert found.tokens == ("<cat>",)
    np.testing.assert_array_equal(found.tables[8], vector[None])


def test_xl_has_a_table_for_each_text_encoder(tmp_path: Path) -> None:
    tables = {"clip_l": vectors(2, 8), "clip_g": vectors(2, 12)}
    found = read_embeddings(saved(tmp_path / "cat.safetensors", tables))
    assert found.tokens == ("cat", "cat_1")
    assert table_for(found, [12, 8]) == found.tables
    np.testing.assert_array_equal(found.tables[12], tables["clip_g"])
    for widths, said in (([8], "want 8"), ([8, 16], "want 8 and 16"), ([8, 12, 16], "8 and 12 and 16")):
        with pytest.raises(ConversionError, match=said) as caught:
            table_for(found, widths)
        assert caught.value.code == "embedding.width"
        assert "vectors of the width 8 and 12;" in caught.value.message


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "it holds nothing"),
        ({"a": vectors(1, 8), "b": vectors(1, 8)}, "known form; it holds a, b"),
        ({"a": vectors(1, 8), "emb_params": vectors(1, 8)}, "known form; it holds a, emb_params"),
        ({name: vectors(1, 8) for name in "abcde"}, r"it holds a, b, c, d\."),
        ({"a": vectors(1, 1, 8)}, r"its a has the shape \[1, 1, 8\]"),
        ({"a": np.array(1.0, np.float32)}, r"its a has the shape \[\]"),
        ({"a": vectors(0, 8)}, r"its a has the shape \[0, 8\]"),
        ({"a": vectors(2, 0)}, r"its a has the shape \[2, 0\]"),
        ({"a": vectors(513, 1)}, "513 vectors, more than 512"),
        ({"a": np.array([1.0, np.inf], np.float32)}, "holds NaN or infinity"),
        ({"clip_l": vectors(1, 8), "clip_g": vectors(1, 8)}, "two tables of the width 8"),
        ({"clip_l": vectors(1, 8), "clip_g": vectors(2, 12)}, "different numbers of vectors"),
    ],
)
def test_what_is_no_embedding_is_refused(tensors: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "file.safetensors", tensors)
    with pytest.raises(ConversionError, match=said) as caught:
        read_embeddings(path)
    assert caught.value.code == "embedding.format"
    assert str(path) in caught.value.message


def test_512_vectors_are_the_most(tmp_path: Path) -> None:
    assert len(read_embeddings(saved(tmp_path / "a.safetensors", {"a": vectors(512, 1)})).tokens) == 512


def test_pickles_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    for number, suffix in enumerate((".pt", ".pth", ".bin", ".ckpt", ".PT")):
        path = tmp_path / f"{number}{suffix}"
        with pytest.raises(ConversionError, match="There is no file") as caught:
            read_embeddings(path)
        assert caught.value.code == "embedding.missing"
        path.touch()
        with pytest.raises(ConversionError, match="is a pickle") as caught:
            read_embeddings(path)
        assert caught.value.code == "embedding.format"

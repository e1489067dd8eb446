"""NaN and infinity among the weights are told with their tensors and numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conversions.checkpoint.folder import open_folder
from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
from conversions.conversion import convert
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.options import Options
from conversions.plan import make_plan
from conversions.weights.not_finite import find_not_finite, infinite, not_finite

FILE = "model.safetensors"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_numbers_that_are_none_are_counted_in_every_type(dtype: type, tmp_path: Path) -> None:
    spoiled = np.linspace(-60000, 60000, 5_000_000).astype(dtype)
    spoiled[[0, 7, 4_999_999]] = np.nan
    spoiled[[1, 4_500_000]] = np.inf, -np.inf
    tensors = {"spoiled": spoiled, "whole": np.ones((3, 3), dtype), "integers": np.full(9, -1, np.int64)}
    save_file(tensors, tmp_path / FILE)
    storage = Folder(tmp_path)
    (found,) = find_not_finite(storage, read_header(storage, FILE).values())
    assert (found.tensor.name, found.nans, found.infinities) == ("spoiled", 3, 2)
    error = not_finite("unet", storage, read_header(storage, FILE).values())
    assert error is not None
    assert "5 weights of 'unet'" in error.message
    assert "spoiled (3 NaN and 2 infinities of 5,000,000)" in error.message


def test_many_tensors_are_named_in_part(tmp_path: Path) -> None:
    save_file({f"t{i}": np.array([np.nan, 1], np.float32) for i in range(9)}, tmp_path / FILE)
    error = not_finite("vae", Folder(tmp_path), read_header(Folder(tmp_path), FILE).values())
    assert error is not None
    assert "9 weights" in error.message
    assert "t4 (1 NaN of 2) and 4 more tensors" in error.message


def test_an_empty_tensor_has_none(tmp_path: Path) -> None:
    tensors = {"a": np.ones((0, 3), np.float32), "b": np.array([np.inf], np.float32)}
    save_file(tensors, tmp_path / FILE)
    (found,) = find_not_finite(Folder(tmp_path), read_header(Folder(tmp_path), FILE).values())
    assert (found.tensor.name, found.nans, found.infinities) == ("b", 0, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_piece_is_infinite_where_one_number_is_none(dtype: type) -> None:
    largest = np.finfo(dtype).max
    assert infinite(np.array([largest, -largest, 0, -0.0], dtype)) == 0
    for number in (np.nan, -np.nan, np.inf, -np.inf):
        assert infinite(np.array([1, number, 2], dtype)) == np.inf
    assert infinite(np.array([], dtype)) == 0


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint16, np.bool_])
def test_whole_numbers_are_finite_whatever_their_bits(dtype: type) -> None:
    assert infinite(np.full(3, 255, np.uint8).astype(dtype)) == 0
    assert infinite(np.array([], dtype)) == 0


def test_finite_weights_give_no_error(tmp_path: Path) -> None:
    save_file({"a": np.array([65504, -65504], np.float16)}, tmp_path / FILE)
    assert not_finite("vae", Folder(tmp_path), read_header(Folder(tmp_path), FILE).values()) is None


@pytest.mark.torch
@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFE00, 0xFFFF])
@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_conversion_blames_the_checkpoint_whatever_the_precision(
    bits: int,
    stored: type,
    precision: str,
    tiny_checkpoint: Path,
    graph_cache: Path,
    tmp_path: Path,
) -> None:
    """Infinities and NaN of either sign, quiet and signalling; no verification is needed to find them."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = {name: value.astype(stored) for name, value in load_file(path).items()}
    with np.errstate(invalid="ignore"):  # a signalling NaN says so when it is cast
        tensors["conv_out.bias"][1] = np.array(bits, np.uint16).view(np.float16).astype(stored)
    save_file(tensors, path)
    opened = open_folder(folder, without={"safety_checker"})
    plan = make_plan(opened, Options(target="cpu", precision=precision), graph_cache)
    with pytest.raises(ConversionError) as caught:
        convert(
            plan,
            opened,
            tmp_path / "package",
            tool_version="test",
            graph_cache=graph_cache,
            checks=None,
            listener=ignore,
        )
    assert caught.value.code == "weights.not_finite"
    what = "infinity" if bits & 0x3FF == 0 else "NaN"
    assert f"conv_out.bias (1 {what} of 4)" in caught.value.message
    assert "fp32" not in caught.value.hint
    assert not (tmp_path / "package").exists()

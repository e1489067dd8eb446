"""One layer of each kind, read from a file and added to a weight, against the formulas in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError
from conversions.weights.expression import Stored, evaluate_range
from conversions.weights.lora.adapter_file import Layer, read_adapter
from conversions.weights.lora.layer import MisfitError, merged
from conversions.weights.read_numbers import read_numbers
from tests import adapters

SHAPES = [(8, 12), (8, 4, 3, 3), (6, 4, 1, 1)]
RANDOM = np.random.default_rng(2)
KEYS = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}


def write(path: Path, parts: Mapping[str, Any], module: str = "unet.x", **metadata: Any) -> Path:
    tensors = {
        f"{module}.{KEYS.get(part, part)}": np.ascontiguousarray(value, np.float32)
        for part, value in parts.items()
    }
    notes = {"lora_adapter_metadata": json.dumps(metadata)} if metadata else None
    save_file(tensors, path, notes)
    return path


def layer_of(path: Path) -> Layer:
    (layer,) = read_adapter(path, path.name).layers
    return layer


def added(folder: Path, layer: Layer, weight: Any, factor: float, bias: Any = None) -> dict[str, Any]:
    """Add a layer to a weight that lies in a file, and evaluate the result in uneven pieces."""
    stored = {"x.weight": np.ascontiguousarray(weight, np.float32)}
    if bias is not None:
        stored["x.bias"] = np.ascontiguousarray(bias, np.float32)
    save_file(stored, folder / "model.safetensors")
    header = read_header(Folder(folder), "model.safetensors")
    expressions = {name: Stored(tensor=tensor) for name, tensor in header.items()}
    read = read_numbers({name: folder / name for name in ("model.safetensors", "a.safetensors")})
    found = {}
    for name, expression in merged(layer, expressions, "x", factor).items():
        assert expression.dtype == "F32"
        pieces = [
            evaluate_range(expression, first, min(7, expression.size - first), read)
            for first in range(0, expression.size, 7)
        ]
        found[name] = np.concatenate(pieces).reshape(expression.shape)
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", [None, 0.0, 1.0, 6.0])
@pytest.mark.parametrize("algorithm", adapters.ALGORITHMS)
def test_a_layer_s_change_is_its_formula(
    tmp_path: Path, algorithm: str, alpha: float | None, shape: tuple[int, ...]
) -> None:
    parts = {name: value * 0.5 for name, value in adapters.factors(algorithm, shape, RANDOM).items()}
    ones = [1] * (len(shape) - 2)
    if algorithm == "dora":
        parts["dora_scale"] = RANDOM.uniform(1, 2, (shape[0], 1, *ones))
    elif algorithm == "dora by column":
        parts["dora_scale"] = RANDOM.uniform(1, 2, (1, shape[1], *ones))
    parts = {name: value.astype(np.float32).astype(np.float64) for name, value in parts.items()}
    weight = RANDOM.standard_normal(shape).astype(np.float32).astype(np.float64)
    stored = parts if alpha is None else {**parts, "alpha": np.float64(alpha)}
    path = write(tmp_path / "a.safetensors", stored)
    for factor in (1.0, 0.6, -0.5):
        found = added(tmp_path, layer_of(path), weight, factor)["x.weight"]
        expected = adapters.changed(weight, parts, alpha, factor)
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_a_bias_changes_with_its_weight_or_alone(tmp_path: Path) -> None:
    weight, bias = RANDOM.standard_normal((8, 12)), RANDOM.standard_normal(8)
    change, shift = RANDOM.standard_normal((8, 12)), RANDOM.standard_normal(8)
    for names in (("diff", "diff_b"), ("w_norm", "b_norm")):
        layer = layer_of(write(tmp_path / "a.safetensors", dict(zip(names, (change, shift), strict=True))))
        both = added(tmp_path, layer, weight, 0.5, bias)
        np.testing.assert_allclose(both["x.weight"], weight + 0.5 * change, atol=1e-6)
        np.testing.assert_allclose(both["x.bias"], bias + 0.5 * shift, atol=1e-6)
    alone = layer_of(write(tmp_path / "a.safetensors", {"diff_b": shift}))
    found = added(tmp_path, alone, weight, 1.0, bias)
    assert set(found) == {"x.bias"}
    np.testing.assert_allclose(found["x.bias"], bias + shift, atol=1e-6)
    with pytest.raises(MisfitError, match=r"the model has no x\.bias"):
        added(tmp_path, alone, weight, 1.0)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"down": (3, 12)}, "it has down and lacks up"),
        ({"up": (8, 3)}, "it has up and lacks down"),
        ({"down": (3, 12), "up": (8, 2)}, r"its factors are \[8, 2\] and \[3, 12\]"),
        ({"down": (3, 11), "up": (8, 3)}, r"it makes \[8, 11\], the weight is \[8, 12\]"),
        ({"down": (3, 8), "up": (12, 3)}, r"it makes \[12, 8\], the weight is \[8, 12\]"),
        ({"down": (3, 12), "up": (8, 3), "diff": (8, 12)}, "lacks nothing"),
        ({"down": (3, 12), "up": (8, 3), "mid": (3, 2, 1)}, "its core is"),
        ({"down": (3, 12), "up": (8, 3), "mid": (3,)}, "its core is"),
        ({"hada_w1_a": (8, 3), "hada_w1_b": (3, 12), "hada_w2_a": (8, 3)}, "lacks hada_w2_b"),
        (
            {"hada_w1_a": (8, 3), "hada_w1_b": (3, 12), "hada_w2_a": (8, 3), "hada_w2_b": (3, 6)},
            r"its halves are \[8, 12\] and \[8, 6\]",
        ),
        ({"lokr_w1": (2, 4)}, "it lacks a part of lokr_w2"),
        ({"lokr_w2": (2, 4)}, "it lacks a part of lokr_w1"),
        ({"lokr_w1": (2, 4), "lokr_w2_a": (4, 3)}, "it lacks a part of lokr_w2"),
        ({"lokr_w1": (2, 4), "lokr_w1_a": (2, 3), "lokr_w1_b": (3, 4), "lokr_w2": (4, 3)}, "part of lokr_w1"),
        ({"dora_scale": (8, 1)}, "it has lengths and no change"),
        ({"diff": (8, 12), "dora_scale": (7, 1)}, "its lengths are 7, the weight wants 8"),
        ({"diff": (8, 12), "dora_scale": (1, 8)}, "its lengths are 8, the weight wants 12"),
        ({"diff": (8, 12), "lora_magnitude_vector": (12,)}, "its lengths are 12, the weight wants 8"),
        ({"diff": (0, 12)}, r"it makes \[0, 12\]"),
        ({"down": (3, 0), "up": (8, 3)}, r"has the shape \[3, 0\]"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_named(tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "a.safetensors", {name: np.ones(shape) for name, shape in parts.items()})
    with pytest.raises(MisfitError, match=said):
        added(tmp_path, layer_of(path), np.ones((8, 12)), 1.0)


def test_magnitudes_of_peft_are_lengths_of_rows(tmp_path: Path) -> None:
    weight, change = RANDOM.standard_normal((8, 8)), RANDOM.standard_normal((8, 8))
    lengths = RANDOM.uniform(1, 2, 8)
    parts = {"diff": change, "lora_magnitude_vector": lengths}
    found = added(tmp_path, layer_of(write(tmp_path / "a.safetensors", parts)), weight, 1.0)
    np.testing.assert_allclose(np.linalg.norm(found["x.weight"], axis=1), lengths, rtol=1e-5)


def test_rows_of_zeros_keep_their_direction(tmp_path: Path) -> None:
    weight = np.zeros((8, 12))
    parts = {"diff": np.zeros((8, 12)), "dora_scale": np.ones((8, 1))}
    found = added(tmp_path, layer_of(write(tmp_path / "a.safetensors", parts)), weight, 1.0)
    assert not found["x.weight"].any()


LOW_RANK = {"down": np.ones((4, 12)), "up": np.ones((8, 4))}


@pytest.mark.parametrize(
    ("parts", "metadata", "scale"),
    [
        ({}, {}, 1.0),
        ({"alpha": 2.0}, {}, 0.5),
        ({"alpha": 0.0}, {}, 1.0),
        ({"alpha": 2.0}, {"unet.lora_alpha": 8}, 0.5),
        ({}, {"unet.lora_alpha": 8}, 2.0),
        ({}, {"unet.lora_alpha": 8, "unet.use_rslora": True}, 4.0),
        ({}, {"unet.lora_alpha": 8, "unet.use_rslora": 1}, 2.0),
        ({"alpha": 2.0}, {"unet.lora_alpha": 8, "unet.use_rslora": True}, 0.5),
        ({}, {"unet.lora_alpha": 8, "unet.alpha_pattern": {"x": 2}}, 0.5),
        ({}, {"unet.lora_alpha": 8, "unet.alpha_pattern": {"y": 2}}, 2.0),
        ({}, {"unet.lora_alpha": 8, "unet.alpha_pattern": [2]}, 2.0),
        ({}, {"text_encoder.lora_alpha": 8}, 1.0),
        ({}, {"lora_alpha": 8}, 1.0),
        ({}, {"unet.lora_alpha": "8"}, 1.0),
        ({}, {"unet.lora_alpha": True}, 1.0),
        ({}, {"unet.lora_alpha": math.inf}, 1.0),
        ({}, {"unet.lora_alpha": 0}, 1.0),
        ({}, {"unet.lora_alpha": 10**400}, 1.0),
        ({}, {"unet.lora_alpha": -(10**400)}, 1.0),
    ],
)
def test_a_change_is_multiplied_by_alpha_over_rank(
    tmp_path: Path, parts: dict[str, Any], metadata: dict[str, Any], scale: float
) -> None:
    layer = layer_of(write(tmp_path / "a.safetensors", {**LOW_RANK, **parts}, **metadata))
    assert layer.scale == scale
    assert set(layer.parts) == {"down", "up"}
    assert len(layer.keys) == 2 + len(parts)


@pytest.mark.parametrize("metadata", ["no json", "[]", "3", "{" * 100_000, "null"])
def test_metadata_that_say_nothing_change_nothing(tmp_path: Path, metadata: str) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {f"unet.x.{KEYS[name]}": value.astype(np.float32) for name, value in LOW_RANK.items()}
    save_file(tensors, path, {"lora_adapter_metadata": metadata})
    assert layer_of(path).scale == 1.0


@pytest.mark.parametrize("alpha", [np.ones(2), np.float64(np.nan), np.float64(np.inf), np.ones(0)])
def test_an_alpha_is_one_finite_number(tmp_path: Path, alpha: Any) -> None:
    path = write(tmp_path / "a.safetensors", {**LOW_RANK, "alpha": alpha})
    with pytest.raises(ConversionError, match="alpha") as caught:
        read_adapter(path, path.name)
    assert caught.value.code == "lora.broken"


@pytest.mark.parametrize("down", [np.ones((0, 12)), np.float64(1)])
def test_a_rank_of_nought_is_refused(tmp_path: Path, down: Any) -> None:
    path = tmp_path / "a.safetensors"
    save_file(
        {
            "unet.x.lora_down.weight": np.asarray(down, np.float32),
            "unet.x.lora_up.weight": np.ones((8, 0), np.float32),
        },
        path,
    )
    with pytest.raises(ConversionError, match=r"its unet\.x has the rank 0") as caught:
        read_adapter(path, path.name)
    assert caught.value.code == "lora.broken"


@pytest.mark.parametrize(("lengths", "granule"), [(np.ones((8, 1)), 12), (np.ones((1, 12)), 96)])
def test_lengths_are_of_whole_rows_or_of_everything(tmp_path: Path, lengths: Any, granule: int) -> None:
    """As small as float32's epsilon, which keeps rows of zeros from being divided by nothing."""
    small = 1e-8
    path = write(tmp_path / "a.safetensors", {"diff": np.zeros((8, 12)), "dora_scale": lengths})
    save_file({"x.weight": np.full((8, 12), small, np.float32)}, tmp_path / "model.safetensors")
    header = read_header(Folder(tmp_path), "model.safetensors")
    expressions = {name: Stored(tensor=tensor) for name, tensor in header.items()}
    (merged_weight,) = merged(layer_of(path), expressions, "x", 1.0).values()
    assert merged_weight.granule == granule
    read = read_numbers({name: tmp_path / name for name in ("model.safetensors", "a.safetensors")})
    found = evaluate_range(merged_weight, 0, 96, read)
    counted = small * math.sqrt(lengths.shape[1] * 12 if lengths.shape[1] == 1 else 8)
    np.testing.assert_allclose(found, small / (counted + np.finfo(np.float32).eps), rtol=1e-4)


def test_changes_are_float32_matrices(tmp_path: Path) -> None:
    for algorithm in adapters.ALGORITHMS:
        if algorithm == "full":
            continue
        parts = adapters.factors(algorithm, (8, 4, 3, 3), RANDOM)
        layer = layer_of(write(tmp_path / "a.safetensors", parts))
        save_file({"x.weight": np.ones((8, 4, 3, 3), np.float32)}, tmp_path / "model.safetensors")
        header = read_header(Folder(tmp_path), "model.safetensors")
        expressions = {name: Stored(tensor=tensor) for name, tensor in header.items()}
        (found,) = merged(layer, expressions, "x", 1.0).values()
        _, delta = found.operands
        assert (delta.dtype, delta.size, delta.shape[0], delta.granule) == ("F32", 288, 8, 36)


def test_keys_of_no_format_and_repeated_ones_are_strange(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    one = np.ones((2, 2), np.float32)
    names = ("unet.x.diff", "unet.x.w_norm", "unet.y.alpha", "note", "unet.z.lora_up.weight")
    save_file({name: one[:1, :1].copy() if "alpha" in name else one.copy() for name in names}, path)
    found = read_adapter(path, "other.safetensors")
    assert [layer.module for layer in found.layers] == ["unet.x", "unet.z"]
    assert set(found.strange) == {"unet.x.w_norm", "unet.y.alpha", "note"}
    assert {tensor.file for layer in found.layers for tensor in layer.parts.values()} == {"other.safetensors"}
    assert len(found.sha256) == 64


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PT"])
def test_pickles_are_refused_by_their_names(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(ConversionError, match="is a pickle") as caught:
        read_adapter(path, path.name)
    assert caught.value.code == "lora.format"


def test_a_file_without_layers_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({f"weight{place}": np.ones(1, np.float32) for place in range(5)}, path)
    with pytest.raises(ConversionError, match=r"it holds weight0, weight1, weight2\.") as caught:
        read_adapter(path, path.name)
    assert caught.value.code == "lora.format"
    save_file({}, path)
    with pytest.raises(ConversionError, match=r"it holds nothing\."):
        read_adapter(path, path.name)
    with pytest.raises(ConversionError, match="is a folder; an adapter is one file") as caught:
        read_adapter(tmp_path, "a.safetensors")
    assert caught.value.code == "lora.missing"

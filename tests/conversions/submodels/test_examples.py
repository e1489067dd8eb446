"""Realistic inputs of every kind of submodel."""

from __future__ import annotations

import numpy as np
import pytest

from conversions.graph_kind import GraphKind
from conversions.submodels import (
    flux2,
    flux_transformer,
    z_image,
)
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.flux2 import FLUX2
from conversions.submodels.flux_transformer import FLUX_TRANSFORMER
from conversions.submodels.gemma2 import GEMMA2_TEXT
from conversions.submodels.padding import example_mask
from conversions.submodels.pixart_transformer import PIXART_TRANSFORMER
from conversions.submodels.qwen3 import QWEN3_LAST_BUT_ONE
from conversions.submodels.sana_transformer import SANA_TRANSFORMER
from conversions.submodels.sd3_transformer import SD3_TRANSFORMER
from conversions.submodels.t5_encoder import T5_ENCODER
from conversions.submodels.unet import UNET, UNET_REFINER
from conversions.submodels.z_image import Z_IMAGE
from conversions.verification.reference import make_inputs
from tests.conversions.submodels.interfaces import (
    INTERFACES,
    REFINER,
    XL,
    by_kind,
)


@by_kind
def test_examples_have_the_inputs_shapes_and_types(kind: GraphKind) -> None:
    config = {"vocab_size": 1000, **next(config for each, config, *_ in INTERFACES if each is kind)}
    inputs = make_inputs(kind, config, kind.sizes)
    for spec in kind.inputs(config):
        array = inputs[spec.name]
        assert array.shape == tuple(kind.sizes.get(str(size), size) for size in spec.shape)
        assert array.dtype == (np.int32 if spec.dtype == "int32" else np.float32)
    assert set(kind.example) <= {
        spec.name for each, other, *_ in INTERFACES if each is kind for spec in kind.inputs(other)
    } | {"time_ids"}


@pytest.mark.parametrize(
    ("kind", "time"),
    [
        (UNET, 481.0),
        (SD3_TRANSFORMER, 481.0),
        (PIXART_TRANSFORMER, 481.0),
        (SANA_TRANSFORMER, 481.0),
    ],
)
def test_times_on_the_training_scale(kind: GraphKind, time: float) -> None:
    assert make_inputs(kind, {"caption_channels": 8}, kind.sizes)["timestep"].tolist() == [time]


@pytest.mark.parametrize("kind", [FLUX_TRANSFORMER, FLUX2, Z_IMAGE])
def test_times_of_flow_matching_lie_between_nought_and_one(kind: GraphKind) -> None:
    times = [float(make_inputs(kind, {}, kind.sizes, seed=seed)["timestep"][0]) for seed in range(20)]
    assert 0 <= min(times) < 0.3
    assert 0.7 < max(times) < 1


def test_sizes_and_guidance_are_examples_of_real_ones() -> None:
    assert make_inputs(UNET, XL, UNET.sizes)["time_ids"].tolist() == [[1024, 1024, 0, 0, 1024, 1024]] * 2
    assert make_inputs(UNET_REFINER, REFINER, UNET.sizes)["time_ids"].tolist() == [[1024, 1024, 0, 0, 6]] * 2
    flux = make_inputs(FLUX_TRANSFORMER, {"guidance_embeds": True}, FLUX_TRANSFORMER.sizes)
    assert flux["guidance"].tolist() == [3.5]
    sana = make_inputs(SANA_TRANSFORMER, {"guidance_embeds": True}, SANA_TRANSFORMER.sizes)
    assert sana["guidance"].tolist() == [np.float32(0.45)]
    assert sana["timestep"].tolist() == [np.float32(0.481)]  # trigonometric times, up to pi / 2
    pixart = make_inputs(PIXART_TRANSFORMER, {"caption_channels": 8}, PIXART_TRANSFORMER.sizes)
    assert pixart["resolution"].tolist() == [[960, 1088]]
    assert pixart["aspect_ratio"].tolist() == [[np.float32(960 / 1088)]]


def test_texts_of_clip_begin_and_end() -> None:
    ids = make_inputs(CLIP_TEXT, {"vocab_size": 50}, {"batch": 40, "sequence": 30})["input_ids"]
    assert (ids[:, 0] == 48).all()
    ends = [int((row == 49).argmax()) for row in ids]
    assert all((row[end:] == 49).all() for row, end in zip(ids, ends, strict=True))
    assert min(ends) >= 10
    assert len(set(ends)) > 5
    words = np.concatenate([row[1:end] for row, end in zip(ids, ends, strict=True)])
    assert set(words.tolist()) == set(range(48))
    assert make_inputs(CLIP_TEXT, {}, {"batch": 2, "sequence": 9})["input_ids"][0, 0] == 49406


def test_texts_of_t5_are_short_and_padded() -> None:
    ids = make_inputs(T5_ENCODER, {"vocab_size": 50}, {"batch": 60, "tokens": 77})["input_ids"]
    ends = [int((row == 1).argmax()) for row in ids]
    assert {min(ends), max(ends)} <= set(range(1, 20))
    assert max(ends) > 15
    for row, end in zip(ids, ends, strict=True):
        assert not row[end + 1 :].any()
        assert row[:end].min() >= 3
    assert ids.max() == 49
    short = make_inputs(T5_ENCODER, {}, {"batch": 30, "tokens": 5})["input_ids"]
    assert ((short == 1).sum(1) == 1).all()
    assert short.max() > 20_000


@pytest.mark.parametrize("kind", [QWEN3_LAST_BUT_ONE, GEMMA2_TEXT])
def test_texts_of_language_models_are_any_tokens(kind: GraphKind) -> None:
    inputs = make_inputs(kind, {"vocab_size": 50}, {"batch": 40, "sequence": 30})
    assert set(inputs["input_ids"].flatten().tolist()) == set(range(50))
    assert make_inputs(kind, {}, kind.sizes)["input_ids"].max() > 100_000


def test_masks_hide_ends_of_different_lengths() -> None:
    mask = example_mask({}, (40, 30), np.random.default_rng(0))
    assert mask.dtype == np.int32
    lengths = mask.sum(1)
    assert all((row[:length] == 1).all() for row, length in zip(mask, lengths, strict=True))
    assert lengths.min() == 10
    assert lengths.max() == 29


def test_padding_of_z_image_s_example() -> None:
    inputs = make_inputs(Z_IMAGE, {}, Z_IMAGE.sizes)
    assert inputs["text_padding"][:, 0].tolist() == [0] * 57 + [1] * 7
    assert z_image._grid(64) == (9, 7)  # eight by eight would leave no padding
    rows, columns = z_image._grid(96)
    assert 64 < rows * columns <= 96
    assert inputs["image_padding"][:, 0].tolist() == [0] * (rows * columns) + [1] * (96 - rows * columns)
    expected, _ = z_image.rotary_tables({}, z_image.image_positions(rows, columns, 64))
    assert np.array_equal(inputs["image_rotary_cos"], expected)


def test_positions_of_the_examples_are_an_image_s() -> None:
    flux = make_inputs(FLUX_TRANSFORMER, {}, FLUX_TRANSFORMER.sizes)
    assert np.array_equal(flux["image_rotary_sin"], flux_transformer.rotary_tables({}, 12, 8)[1])
    assert flux["text_rotary_cos"].all()
    assert not flux["text_rotary_sin"].any()
    second = make_inputs(FLUX2, {}, FLUX2.sizes)
    expected = flux2.rotary_tables({}, flux2.image_positions(8, 12))
    assert np.array_equal(second["image_rotary_cos"], expected[0])
    assert np.array_equal(second["text_rotary_sin"], flux2.rotary_tables({}, flux2.text_positions(20))[1])

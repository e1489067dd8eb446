"""PyTorch's numbers from a folder, from expressions over files, and with quantised weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
from conversions.checkpoint.weight_files import WeightFiles
from conversions.errors import ConversionError
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.t5_encoder import T5_ENCODER
from conversions.verification.reference import (
    ExpressionWeights,
    FolderWeights,
    Reference,
    make_inputs,
    run_reference,
)
from conversions.weights.expression import Stored
from conversions.weights.quantize import quantize
from tests.checkpoints import TEXT
from tests.sd3_checkpoints import T5, random_weights

pytestmark = pytest.mark.torch

CONFIG = {**TEXT, "vocab_size": 60, "eos_token_id": 59, "bos_token_id": 58}
FILE = "model.safetensors"
FC1 = "encoder.layers.0.mlp.fc1.weight"


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    """Import the libraries, which takes seconds, before a test's time counts."""
    CLIP_TEXT.component_class()
    T5_ENCODER.component_class()


@pytest.fixture(scope="module")
def model() -> Any:
    import torch

    torch.manual_seed(0)
    return random_weights(CLIP_TEXT.create(CONFIG)).eval()


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("encoder")
    model.save_pretrained(made)
    return made


def inputs() -> Any:
    return make_inputs(CLIP_TEXT, CONFIG, {"batch": 2, "sequence": 9})


def files(variant: str = "") -> WeightFiles:
    return WeightFiles(files=(FILE,), index=None, format="safetensors", variant=variant)


def expressions(folder: Path, *without: str, dtype: str = "float32", prefix: str = "") -> ExpressionWeights:
    stored = read_header(Folder(folder), FILE)
    return ExpressionWeights(
        tensors={
            f"{prefix}{name.removeprefix('text_model.')}": Stored(tensor=tensor)
            for name, tensor in stored.items()
            if not name.endswith(without)
        },
        paths={FILE: folder / FILE},
        dtype=dtype,
    )


def of_class(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        found = model(torch.from_numpy(inputs()["input_ids"]).long())
    return {
        "last_hidden_state": found.last_hidden_state.numpy(),
        "pooler_output": found.pooler_output.numpy(),
    }


def assert_gives(reference: Reference, expected: Any) -> None:
    assert list(reference.outputs) == ["last_hidden_state", "pooler_output"]
    for name, wanted in expected.items():
        np.testing.assert_allclose(reference.outputs[name], wanted, rtol=1e-4, atol=1e-5)


def test_a_folder_and_expressions_give_the_class_s_numbers(model: Any, folder: Path) -> None:
    expected = of_class(model)
    for weights in (
        FolderWeights(folder=folder, files=files()),
        expressions(folder),
        expressions(folder, prefix="text_model."),
    ):
        found = run_reference(CLIP_TEXT, CONFIG, weights, inputs())
        assert_gives(found, expected)
        assert found.unquantized is None
        assert found.largest >= max(np.abs(each).max() for each in expected.values())
        assert 0 < found.largest_deviation < found.largest


def test_half_of_a_folder_s_files_may_be_of_a_variant(model: Any, folder: Path, tmp_path: Path) -> None:
    other = CLIP_TEXT.create(CONFIG)
    other.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, variant="fp16")
    found = run_reference(CLIP_TEXT, CONFIG, FolderWeights(folder=tmp_path, files=files("fp16")), inputs())
    assert_gives(found, of_class(model))


def test_weights_that_are_kept_narrow_compute_in_float32(model: Any, tmp_path: Path) -> None:
    import copy

    narrow = copy.deepcopy(model).half()
    narrow.save_pretrained(tmp_path)
    found = run_reference(CLIP_TEXT, CONFIG, expressions(tmp_path, dtype="float16"), inputs())
    assert_gives(found, of_class(narrow.float()))
    assert {each.dtype for each in found.outputs.values()} == {np.dtype(np.float32)}
    # What is kept narrow is rounded to it.
    wide = run_reference(CLIP_TEXT, CONFIG, expressions(tmp_path), inputs())
    assert_gives(wide, of_class(narrow))


def test_quantised_weights_count_as_what_they_stand_for(model: Any, folder: Path) -> None:
    import copy

    import torch

    rounded = copy.deepcopy(model)
    weight = rounded.get_parameter(FC1)
    with torch.no_grad():
        weight.copy_(torch.from_numpy(quantize(weight.numpy(), 4, np.float16).restored()))
    found = run_reference(CLIP_TEXT, CONFIG, expressions(folder), inputs(), {FC1: "int4"})
    assert_gives(found, of_class(rounded))
    assert found.unquantized is not None
    for name, wanted in of_class(model).items():
        np.testing.assert_allclose(found.unquantized[name], wanted, rtol=1e-4, atol=1e-5)
    assert not np.allclose(
        found.unquantized["last_hidden_state"], found.outputs["last_hidden_state"], atol=1e-5
    )


def test_the_first_weight_that_is_missing_is_named(folder: Path) -> None:
    weights = expressions(folder, "0.mlp.fc2.bias", "1.mlp.fc1.bias")
    with pytest.raises(ConversionError) as caught:
        run_reference(CLIP_TEXT, CONFIG, weights, inputs())
    assert caught.value.code == "weights.missing"
    assert caught.value.message == "There is no tensor for encoder.layers.0.mlp.fc2.bias of clip_text."
    assert "download it again" in caught.value.hint


def test_a_weight_of_two_names_needs_one(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    config = {**T5, "vocab_size": 60}
    made = random_weights(T5_ENCODER.create(config)).eval()
    made.save_pretrained(tmp_path)
    arrays = make_inputs(T5_ENCODER, config, {"batch": 2, "tokens": 9})
    weights = expressions(tmp_path)
    assert len([name for name in weights.tensors if "embed" in name or "shared" in name]) == 1
    found = run_reference(T5_ENCODER, config, weights, arrays)
    with torch.inference_mode():
        expected = made(torch.from_numpy(arrays["input_ids"])).last_hidden_state.numpy()
    np.testing.assert_allclose(found.outputs["last_hidden_state"], expected, rtol=1e-4, atol=1e-4)


def test_a_configuration_that_cannot_be_built_names_the_class(folder: Path) -> None:
    with pytest.raises(ConversionError, match="A CLIPTextModel cannot be built") as caught:
        run_reference(CLIP_TEXT, {**CONFIG, "hidden_act": "none"}, expressions(folder), inputs())
    assert caught.value.code == "config.untraceable"


def test_a_reference_changes_nothing_of_the_next(model: Any, folder: Path) -> None:
    import torch

    for dtype in ("float16", "float32"):
        run_reference(CLIP_TEXT, CONFIG, expressions(folder, dtype=dtype), inputs())
    assert torch.get_default_dtype() == torch.float32
    assert torch.nn.Linear(4, 4).weight.std() > 0

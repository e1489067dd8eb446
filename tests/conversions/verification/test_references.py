"""What computes the numbers that a package is compared with, and where it finds the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions.checkpoint.folder import Checkpoint, open_folder
from conversions.checkpoint.memory import Memory
from conversions.errors import ConversionError
from conversions.events import Event, Finished, Started, ignore
from conversions.verification import references
from conversions.verification.reference import (
    ExpressionWeights,
    FolderWeights,
    make_inputs,
    run_reference,
)
from conversions.verification.references import (
    NAMES,
    default_reference,
    expressions_of,
    pytorch_is_installed,
    run_references,
    weights_of,
)
from sdsetup.demo import checkpoint_path


@pytest.fixture
def opened() -> Checkpoint:
    return open_folder(checkpoint_path())


def text_encoder(opened: Checkpoint) -> Any:
    return next(each for each in opened.submodels if each.name == "text_encoder")


def inputs_of(opened: Checkpoint, submodel: Any, **more: int) -> Any:
    return make_inputs(submodel.kind, opened.config_of(submodel), submodel.kind.sizes, **more)


def test_pytorch_is_asked_where_all_of_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NAMES["pytorch"] == "PyTorch"
    for lacking in (None, "torch", "diffusers", "transformers"):
        monkeypatch.setattr(
            references, "find_spec", lambda name, lacking=lacking: None if name == lacking else object()
        )
        assert pytorch_is_installed() is (lacking is None)
        assert default_reference() == ("pytorch" if lacking is None else "float32_graph")


def test_without_pytorch_it_cannot_be_asked(opened: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "find_spec", lambda _: None)
    with pytest.raises(ConversionError, match="needs torch, diffusers and transformers") as caught:
        run_references({}, opened, {}, {}, ignore)
    assert caught.value.code == "verify.no_pytorch"
    assert run_references({}, opened, {}, {}, ignore, kind="float32_graph") == {}


def test_a_graph_is_evaluated_for_each_submodel(opened: Checkpoint) -> None:
    told: list[Event] = []
    submodel = text_encoder(opened)
    inputs = {submodel.name: inputs_of(opened, submodel)}
    found = run_references(
        {submodel.name: submodel},
        opened,
        inputs,
        {submodel.name: {}},
        told.append,
        kind="float32_graph",
    )
    outputs = found["text_encoder"].outputs
    assert {value.dtype for value in outputs.values()} == {np.dtype(np.float32)}
    assert "last_hidden_state" in outputs
    assert found["text_encoder"].unquantized is None
    task = "reference text_encoder"
    assert told == [
        Started(task=task, label="text_encoder: evaluating in float32"),
        Finished(task=task),
    ]


def test_libraries_load_a_folder_themselves_where_it_holds_the_weights_as_they_are(
    opened: Checkpoint,
) -> None:
    component = opened.components["unet"]
    folder = checkpoint_path() / "unet"
    assert weights_of(opened, component) == FolderWeights(folder=folder, files=component.weights)
    changed = weights_of(opened, replace(component, transforms=(dict,)))
    assert isinstance(changed, ExpressionWeights)
    assert changed.dtype == "float32"
    assert changed.paths["unet/diffusion_pytorch_model.safetensors"].parent == folder
    assert set(changed.tensors) == set(expressions_of(opened, component).tensors)


def test_weights_elsewhere_cannot_be_compared(opened: Checkpoint) -> None:
    content = {
        name: Path(checkpoint_path() / name).read_bytes()
        for name in ("text_encoder/config.json", "text_encoder/model.safetensors")
    }
    remote = replace(opened, storage=Memory("far away", content))
    for look in (weights_of, expressions_of):
        with pytest.raises(ConversionError, match="on this machine") as caught:
            look(remote, opened.components["text_encoder"])
        assert caught.value.code == "verify.remote"


def test_inputs_are_what_float16_holds_and_the_same_each_time(opened: Checkpoint) -> None:
    unet = next(each for each in opened.submodels if each.name == "unet")
    first, again, other = (inputs_of(opened, unet, seed=seed) for seed in (0, 0, 1))
    assert list(first) == ["sample", "timestep", "encoder_hidden_states"]
    for name, value in first.items():
        assert np.array_equal(value, again[name])
        assert np.array_equal(value, inputs_of(opened, unet)[name])
    assert not np.array_equal(first["sample"], other["sample"])
    sample = first["sample"]
    assert sample.dtype == np.float32
    assert np.array_equal(sample, sample.astype(np.float16).astype(np.float32))
    sizes = unet.kind.sizes
    assert sample.shape == (sizes["batch"], 4, sizes["height"], sizes["width"])
    assert abs(sample.std() - 1) < 0.2
    text = inputs_of(opened, text_encoder(opened))["input_ids"]
    assert text.dtype == np.int32


@pytest.mark.robustness  # a quarter of a minute
@pytest.mark.torch
def test_pytorch_computes_the_same_from_a_folder_and_from_expressions(opened: Checkpoint) -> None:
    submodel = text_encoder(opened)
    component = opened.components["text_encoder"]
    inputs = inputs_of(opened, submodel)

    def computed(weights: Any, **quantized: str) -> Any:
        return run_reference(submodel.kind, component.config, weights, inputs, quantized)

    folder = computed(weights_of(opened, component))
    stored = expressions_of(opened, component)
    expressions = computed(stored)
    assert folder.outputs.keys() == expressions.outputs.keys()
    for name, value in folder.outputs.items():
        np.testing.assert_allclose(expressions.outputs[name], value, rtol=1e-4, atol=1e-5)
    assert folder.unquantized is expressions.unquantized is None
    assert folder.largest == pytest.approx(expressions.largest, rel=1e-4)
    assert folder.largest >= max(np.abs(value).max() for value in folder.outputs.values()) * 0.999
    assert folder.largest_deviation > 0
    weight = next(name for name in stored.tensors if name.endswith("layers.0.mlp.fc1.weight"))
    name = weight.removeprefix("text_model.")
    coarse = computed(stored, **{name: "int4"})
    state = "last_hidden_state"
    assert coarse.unquantized is not None
    np.testing.assert_array_equal(coarse.unquantized[state], expressions.outputs[state])
    difference = np.abs(coarse.outputs[state] - expressions.outputs[state]).max()
    assert 1e-4 < difference < 10
    lacking = {name: each for name, each in stored.tensors.items() if name != weight}
    with pytest.raises(ConversionError, match=r"There is no tensor for \S*layers\.0\.mlp\.fc1") as caught:
        computed(replace(stored, tensors=lacking))
    assert caught.value.code == "weights.missing"

"""Layers at the end of CLIP's text encoder that are left out, as with ``clip_skip``."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from conversions import graphs
from conversions.families.stable_diffusion import SD1_TEXT
from conversions.passes.simplify import TRANSPOSED
from conversions.submodels.clip_text import CLIP_TEXT, CLIP_TEXT_LAYERS, CLIP_TEXT_PROJECTED, skip_layers
from conversions.verification.metrics import compare
from conversions.verification.reference import make_inputs
from tests.checkpoints import TEXT
from tests.sd3_checkpoints import random_weights


@pytest.mark.torch
@pytest.mark.parametrize("count", [1, 2])
def test_the_states_before_the_last_layers_are_normed_and_pooled(count: int) -> None:
    import onnxruntime as ort
    import torch

    from conversions.graphs.trace import trace

    config = {**TEXT, "num_hidden_layers": 3, "vocab_size": 60, "eos_token_id": 59, "bos_token_id": 58}
    torch.manual_seed(2)
    component = random_weights(CLIP_TEXT.create(config)).eval()
    model = trace(CLIP_TEXT, config)
    skip_layers(model, count=count)
    state = component.state_dict()
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            weight = state[name].numpy()
            weight = weight.T if TRANSPOSED in value.metadata_props else weight
            value.const_value = ir.tensor(np.ascontiguousarray(weight), name=name)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = make_inputs(CLIP_TEXT, config, {"batch": 2, "sequence": 9})
    found = session.run(None, inputs)
    with torch.inference_mode():
        ids = torch.from_numpy(inputs["input_ids"]).long()
        states = component(ids, output_hidden_states=True).hidden_states[3 - count]
        states = component.final_layer_norm(states)
        pooled = states[range(2), (ids == 59).int().argmax(1)]
    for numbers, expected in zip(found, (states, pooled), strict=True):
        assert compare(numbers, expected.numpy()).psnr_db >= 100


@pytest.mark.parametrize("count", [1, 5])
def test_nothing_of_the_layers_that_are_left_out_is_run(count: int) -> None:
    model = graphs.find(CLIP_TEXT, SD1_TEXT, None)
    assert model is not None
    before = sum(node.op_type == "MultiHeadAttention" for node in model.graph)
    skip_layers(model, count=count)
    read = {str(value.name) for node in model.graph for value in node.inputs if value is not None}
    assert sum(node.op_type == "MultiHeadAttention" for node in model.graph) == before - count
    assert f"encoder.layers.{before - count - 1}.mlp.fc1.weight" in read
    assert f"encoder.layers.{before - count}.mlp.fc1.weight" not in read


def test_encoders_whose_layers_are_outputs_leave_none_out() -> None:
    assert CLIP_TEXT.skip_layers is skip_layers
    assert CLIP_TEXT_LAYERS.skip_layers is CLIP_TEXT_PROJECTED.skip_layers is None

"""T5 in float16: the residual stream is scaled by powers of two, which change nothing in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from conversions import graphs
from conversions.passes.simplify import TRANSPOSED
from conversions.passes.to_fp16 import to_fp16
from conversions.submodels.t5_encoder import DEFAULTS, STREAM, T5_ENCODER
from conversions.verification.metrics import compare
from conversions.verification.reference import make_inputs

pytestmark = pytest.mark.torch

CONFIG = {
    "vocab_size": 300,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 3,
    "num_heads": 4,
}


def encoder(config: dict[str, Any]) -> Any:
    """Make an encoder whose residual stream grows far beyond float16, as published ones' does."""
    import torch

    made = T5_ENCODER.create(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            spread = weight[0].numel() ** 0.5 if weight.ndim > 1 and "shared" not in name else 1
            weight.copy_(torch.randn(weight.shape, generator=generator) / spread)
        for block in made.encoder.block:
            block.layer[1].DenseReluDense.wo.weight *= 100_000
    return made


def run(packed: bytes, made: Any, inputs: dict[str, Any], *, scaled: bool, half: bool) -> Any:
    """Run a graph with the weights that a package has, or with the checkpoint's own."""
    import onnxruntime as ort

    model = graphs.unpack(packed, T5_ENCODER, CONFIG)
    if not scaled:
        for node in model.graph:
            if node.op_type == "SimplifiedLayerNormalization":
                node.attributes["epsilon"] = ir.AttrFloat32("epsilon", DEFAULTS["layer_norm_epsilon"])
    if half:
        to_fp16(model)
    state = made.state_dict()
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            weight = state[name].numpy() * np.float32(T5_ENCODER.scale_of(name) if scaled else 1)
            weight = weight.T if TRANSPOSED in value.metadata_props else weight
            value.const_value = ir.tensor(weight.astype(value.dtype.numpy()), name=name)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0].astype(np.float32)


@pytest.mark.parametrize("layer", ["gated-gelu", "relu"])
def test_scaled_weights_give_the_same_bits_in_float32_and_fit_float16(layer: str) -> None:
    import torch

    config = {**CONFIG, "feed_forward_proj": layer}
    made, packed = encoder(config), graphs.trace_and_pack(T5_ENCODER, config)
    inputs: dict[str, Any] = make_inputs(T5_ENCODER, config, {"batch": 2, "tokens": 160})
    with torch.inference_mode():
        expected = T5_ENCODER.reference(made)(torch.from_numpy(inputs["input_ids"])).numpy()
    assert STREAM < 1
    scaled = run(packed, made, inputs, scaled=True, half=False)
    assert np.array_equal(scaled, run(packed, made, inputs, scaled=False, half=False))
    assert compare(scaled, expected).psnr_db >= 110
    assert compare(run(packed, made, inputs, scaled=True, half=True), expected).psnr_db >= 50
    assert not np.all(np.isfinite(run(packed, made, inputs, scaled=False, half=True)))

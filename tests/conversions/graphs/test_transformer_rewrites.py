"""Layers of transformers as the tracer writes them give PyTorch's numbers, at sizes other than the traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.verification.metrics import compare

pytestmark = pytest.mark.torch

HEADS, SIZE = 4, 6


def kind_of(module: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> GraphKind:
    return GraphKind(
        id="layers",
        class_name="Layers",
        defaults={},
        irrelevant=frozenset(),
        inputs=lambda _: inputs,
        outputs=lambda _: outputs,
        component_class=lambda: None,
        create=lambda _: None,
        wrap=lambda _: module,
        traced_sizes={"batch": 2, "sequence": 13, "rows": 6, "columns": 10, "patches": 15},
    )


def outputs_of(kind: GraphKind, feeds: dict[str, np.ndarray[Any, Any]]) -> list[Any]:
    """Trace, run in ONNX Runtime, and return what it gives with what PyTorch gives."""
    import onnxruntime as ort
    import torch

    from conversions.graphs.trace import trace

    config: Config = {}
    model = trace(kind, config)
    session = ort.InferenceSession(
        ir.serde.serialize_model(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    with torch.inference_mode():
        expected = kind.wrap(None)(*(torch.from_numpy(each) for each in feeds.values()))
    wanted = expected if isinstance(expected, tuple) else (expected,)
    return list(zip(session.run(None, feeds), (each.numpy() for each in wanted), strict=True))


def test_patches_are_put_together_and_widths_are_split_unevenly() -> None:
    import torch

    from conversions.graphs.transformer_rewrites import unpatchify

    class Layers(torch.nn.Module):
        def forward(self, tokens: Any, like: Any) -> Any:
            return (unpatchify(tokens, like, 2), *torch.split(tokens, [5, 4, 3], dim=-1))

    inputs = (
        TensorSpec(name="tokens", dtype="float", shape=("batch", "patches", 12)),
        TensorSpec(name="like", dtype="float", shape=("batch", 1, "rows", "columns")),
    )
    outputs = (
        TensorSpec(name="image", dtype="float", shape=("batch", 3, "rows", "columns")),
        *(
            TensorSpec(name=f"part.{size}", dtype="float", shape=("batch", "patches", size))
            for size in (5, 4, 3)
        ),
    )
    random = np.random.default_rng(0)
    feeds = {
        "tokens": random.standard_normal((3, 4 * 7, 12)).astype(np.float32),
        "like": random.standard_normal((3, 1, 8, 14)).astype(np.float32),
    }
    for found, expected in outputs_of(kind_of(Layers(), inputs, outputs), feeds):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("interleaved", [False, True])
def test_grouped_masked_and_scaled_attention_with_rotary_positions(interleaved: bool) -> None:
    import torch

    from conversions.graphs.export_rewrites import attention
    from conversions.graphs.transformer_rewrites import causal_padding_bias, repeat_heads, rotary

    class Layers(torch.nn.Module):
        def forward(self, query: Any, key: Any, mask: Any, cos: Any, sin: Any) -> Any:
            query = rotary(query, cos, sin, HEADS, interleaved)
            key = repeat_heads(rotary(key, cos, sin, HEADS // 2, interleaved), HEADS // 2, 2)
            return attention(query, key, key, causal_padding_bias(mask, HEADS), HEADS, 0.7)

    inputs = (
        TensorSpec(name="query", dtype="float", shape=("batch", "sequence", HEADS * SIZE)),
        TensorSpec(name="key", dtype="float", shape=("batch", "sequence", HEADS // 2 * SIZE)),
        TensorSpec(name="mask", dtype="int32", shape=("batch", "sequence")),
        TensorSpec(name="cos", dtype="float32", shape=("sequence", SIZE // 2)),
        TensorSpec(name="sin", dtype="float32", shape=("sequence", SIZE // 2)),
    )
    output = TensorSpec(name="mixed", dtype="float", shape=("batch", "sequence", HEADS * SIZE))
    random = np.random.default_rng(1)
    angles = random.standard_normal((9, SIZE // 2)).astype(np.float32)
    mask = np.ones((3, 9), dtype=np.int32)
    mask[1, 5:] = 0
    feeds = {
        "query": random.standard_normal((3, 9, HEADS * SIZE)).astype(np.float32),
        "key": random.standard_normal((3, 9, HEADS // 2 * SIZE)).astype(np.float32),
        "mask": mask,
        "cos": np.cos(angles),
        "sin": np.sin(angles),
    }
    ((found, expected),) = outputs_of(kind_of(Layers(), inputs, (output,)), feeds)
    assert compare(found, expected).psnr_db >= 120

"""A graph with one convolution, for the tests of passes that write it out."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from tests.conversions.graphs_for_tests import run_on_cpu


def convolution_graph(
    attributes: str = "pads = [1, 1, 1, 1]",
    *,
    weight: tuple[int, ...],
    channels: int | None = None,
    bias: bool = True,
    dtype: str = "float",
) -> ir.Model:
    """Return x, a Conv named "conv" with random weights, and Neg; sizes of images are free."""
    channels = weight[1] if channels is None else channels
    image = ", ".join(["height", "width"][: len(weight) - 2])
    out = ", ".join(["rows", "columns"][: len(weight) - 2])
    kernel = f"kernel_shape = [{', '.join(map(str, weight[2:]))}]"
    text = f"""
    <ir_version: 10, opset_import: ["" : 18]>
    g ({dtype}[batch, {channels}, {image}] x) => ({dtype}[batch, {weight[0]}, {out}] y)
    {{
      [conv] c = Conv <{", ".join(filter(None, [kernel, attributes]))}> (x, w{", b" if bias else ""})
      y = Neg(c)
    }}
    """
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(1)
    for name, shape in {"w": weight, "b": weight[:1]}.items():
        values = random.normal(0, 1, shape).astype(np.float16 if dtype == "float16" else np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return ir.from_proto(proto)


def same_numbers(model: ir.Model, changed: ir.Model, sizes: dict[str, int], channels: int) -> None:
    """Assert that two graphs in float32 give the same for random images of these sizes."""
    shape = (sizes["batch"], channels, sizes["height"], sizes["width"])
    feeds = {"x": np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)}
    (before,) = run_on_cpu(model, feeds)
    (after,) = run_on_cpu(changed, feeds)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)

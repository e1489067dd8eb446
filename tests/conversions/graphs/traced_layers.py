"""Layers that are traced, run in ONNX Runtime at other sizes, and compared with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from conversions.graph_kind import GraphKind, TensorSpec
from conversions.graphs.trace import trace
from conversions.verification.metrics import compare

Arrays = dict[str, np.ndarray[Any, Any]]
TRACED_SIZES = {"batch": 2, "sequence": 13, "keys": 11, "rows": 6, "columns": 10, "patches": 15, "pixels": 60}


def kind_of(
    forward: Callable[..., Any], inputs: Mapping[str, tuple[Any, ...]], feeds: Arrays, outputs: int
) -> GraphKind:
    """Return a kind that is traced to a function's graph.

    Args:
        forward: Called with the inputs in their order; gives a tuple.
        inputs: Their shapes; those that are fed with whole numbers are int32.
        feeds: What the inputs are fed with.
        outputs: How many tensors the function gives.
    """
    import torch

    layers = torch.nn.Module()
    layers.forward = forward
    taken = tuple(
        TensorSpec(name=name, dtype="int32" if feeds[name].dtype == np.int32 else "float", shape=shape)
        for name, shape in inputs.items()
    )
    given = tuple(TensorSpec(name=f"out.{place}", dtype="float", shape=()) for place in range(outputs))
    return GraphKind(
        id="layers",
        class_name="Layers",
        defaults={},
        irrelevant=frozenset(),
        inputs=lambda _: taken,
        outputs=lambda _: given,
        component_class=lambda: None,
        create=lambda _: layers,
        wrap=lambda component: component,
        traced_sizes=TRACED_SIZES,
    )


def agreeing(
    forward: Callable[..., Any],
    inputs: Mapping[str, tuple[Any, ...]],
    feeds: Arrays,
    expected: tuple[Any, ...],
) -> ir.Model:
    """Return the graph of a function, of which ONNX Runtime and PyTorch compute the expected numbers.

    Args:
        forward: Called with the inputs in their order; gives a tuple.
        inputs: Their shapes; names of sizes are those of ``TRACED_SIZES``.
        feeds: Arrays of other sizes.
        expected: What the function means, worked out in another way.
    """
    import onnxruntime as ort
    import torch

    kind = kind_of(forward, inputs, feeds, len(expected))
    model = trace(kind, {})
    copy = model.clone()
    for output in copy.graph.outputs:
        output.shape = None
    session = ort.InferenceSession(
        ir.serde.serialize_model(copy).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    with torch.inference_mode():
        eager = forward(*(torch.from_numpy(each) for each in feeds.values()))
    found = session.run(None, feeds)
    for graph, here, wanted in zip(found, eager, expected, strict=True):
        numbers = np.asarray(wanted, np.float32)
        assert graph.shape == tuple(here.shape) == numbers.shape
        assert compare(here.numpy(), numbers).psnr_db >= 100
        assert compare(graph, numbers).psnr_db >= 100
    return model


def operators(model: ir.Model) -> list[str]:
    """Return the operators of a graph, sorted."""
    return sorted(node.op_type for node in model.graph)


def random(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return noise that is the same each time."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def load_exporter() -> None:
    """Import what traces, which takes seconds, before a test's time counts."""
    agreeing(lambda x: (x * 2,), {"x": ("batch",)}, {"x": np.ones(3, np.float32)}, ([2, 2, 2],))

"""What is left of a trace: ports with names and free sizes, weights without values, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from conversions.errors import ConversionError
from conversions.graph_kind import GraphKind, Rename, TensorSpec
from conversions.graphs.trace import OPSET, Weights, compare_with_class, describe, trace
from tests.conversions.graphs.traced_layers import TRACED_SIZES, load_exporter

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module", autouse=True)
def _exporter() -> None:
    load_exporter()


class Component:
    """Make a component with a layer, and a module around it as kinds do."""

    @staticmethod
    def create(config: Any) -> Any:
        import torch

        width = config.get("width", 8)
        component = torch.nn.Module()
        component.layer = torch.nn.Linear(width, width)
        component.register_buffer("places", torch.arange(width))
        return component

    @staticmethod
    def wrap(component: Any) -> Any:
        import torch

        class Module(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = component

            def forward(
                self, x: torch.Tensor, ids: torch.Tensor, timestep: torch.Tensor
            ) -> tuple[torch.Tensor, torch.Tensor]:
                assert not self.training
                found = self.model.layer(x) + ids[:, :, None] * timestep
                return found, found.sum((1, 2)) > 0

        return Module()


KIND = GraphKind(
    id="component",
    class_name="Component",
    defaults={},
    irrelevant=frozenset(),
    inputs=lambda _: (
        TensorSpec(name="sample", dtype="float", shape=("batch", "sequence", 8)),
        TensorSpec(name="input_ids", dtype="int32", shape=("batch", "sequence")),
        TensorSpec(name="timestep", dtype="float32", shape=(1,)),
    ),
    outputs=lambda _: (
        TensorSpec(name="out_sample", dtype="float", shape=("batch", "sequence", 8)),
        TensorSpec(name="flagged", dtype="bool", shape=("batch",)),
    ),
    component_class=lambda: None,
    create=Component.create,
    wrap=Component.wrap,
    renames=(Rename(pattern=r"^old\.", replacement=""),),
    traced_sizes=TRACED_SIZES,
)


def weights(**shapes: tuple[int, ...]) -> Weights:
    tensors: Any = {
        name.replace("_", "."): SimpleNamespace(
            shape=shape, name=name.replace("_", "."), dtype="F32", size=int(np.prod(shape)), operands=()
        )
        for name, shape in shapes.items()
    }
    return Weights(component="unet", tensors=tensors)


FITTING = {"old_layer_weight": (8, 8), "layer_bias": (8,)}


def test_ports_have_the_names_types_and_sizes_of_the_kind() -> None:
    import torch

    model = trace(KIND, {}, weights(**FITTING))
    ports = [
        (
            value.name,
            value.dtype,
            [str(size.value) if isinstance(size, ir.SymbolicDim) else size for size in value.shape],
        )
        for value in (*model.graph.inputs, *model.graph.outputs)
    ]
    assert ports == [
        ("sample", ir.DataType.FLOAT, ["batch", "sequence", 8]),
        ("input_ids", ir.DataType.INT32, ["batch", "sequence"]),
        ("timestep", ir.DataType.FLOAT, [1]),
        ("out_sample", ir.DataType.FLOAT, ["batch", "sequence", 8]),
        ("flagged", ir.DataType.BOOL, ["batch"]),
    ]
    assert model.graph.name == "component"
    assert model.graph.opset_imports[""] == OPSET == 18
    assert torch.is_grad_enabled()


def test_weights_have_the_checkpoint_s_names_and_no_values() -> None:
    graph = trace(KIND, {}).graph
    without = {name: value for name, value in graph.initializers.items() if value.const_value is None}
    assert set(without) == {"layer.weight", "layer.bias"}
    assert {value.name for value in without.values()} == set(without)
    assert tuple(without["layer.bias"].shape) == (8,)


def test_nothing_else_of_the_trace_is_left() -> None:
    model = trace(KIND, {})
    assert not model.metadata_props
    assert not model.graph.metadata_props
    for node in model.graph:
        assert node.doc_string is None
        assert not node.metadata_props
        for output in node.outputs:
            assert not output.metadata_props
            # Sizes of the trace hold for it alone.
            assert not {2, TRACED_SIZES["sequence"]} & {*(output.shape or ())}
    assert {key for value in model.graph.inputs for key in value.metadata_props} == set()
    counts = describe(model)
    assert counts == dict(sorted(counts.items()))
    assert sum(counts.values()) == len(model.graph)
    assert counts["Greater"] == 1


def test_a_size_that_the_trace_fixes_is_named() -> None:
    import torch

    class Fixing(torch.nn.Module):
        def forward(
            self, x: torch.Tensor, ids: torch.Tensor, timestep: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            found = x + torch.ones(TRACED_SIZES["sequence"], 1) + ids[:, :, None] * timestep
            return found, found.sum((1, 2)) > 0

    kind = replace(KIND, create=lambda _: torch.nn.Module(), wrap=lambda _: Fixing())
    with pytest.raises(ConversionError, match="does not trace with free sizes") as caught:
        trace(kind, {})
    assert caught.value.code == "trace.fixed_size"
    assert "the trace fixed sequence of sample, sequence of input_ids." in caught.value.message
    assert "config.json" in caught.value.hint


@pytest.mark.parametrize("look", [compare_with_class, trace])
def test_weights_of_other_shapes_are_refused_before_anything_is_traced(look: Any) -> None:
    def wrap(component: Any) -> Any:
        pytest.fail("it was traced")

    kind = replace(KIND, wrap=wrap)
    wrong = weights(**{**FITTING, "layer_bias": (9,)})
    with pytest.raises(ConversionError, match=r"layer\.bias") as caught:
        look(kind, {}, wrong)
    assert caught.value.code == "weights.shape"
    assert "unet" in caught.value.message
    with pytest.raises(ConversionError):
        look(kind, {"width": 9}, weights(**FITTING))
    compare_with_class(kind, {}, weights(**FITTING))


def test_a_class_is_built_without_memory_for_its_weights() -> None:
    compare_with_class(KIND, {"width": 1 << 20}, weights(layer_bias=(1 << 20,)))

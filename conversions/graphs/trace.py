"""From a configuration to a graph without weights: the submodel runs on tensors without data."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.passes.simplify import simplify
from conversions.weights.binding import demand_shapes
from conversions.weights.expression import Tensors

logger = logging.getLogger(__name__)

# DirectML's kernels are registered per schema version: 18 is the newest opset for which it has all that
# these models need. Source: docs/explanation/directml.md.
OPSET = 18

_ELEMENT = {
    "float": ir.DataType.FLOAT,
    "float32": ir.DataType.FLOAT,
    "int32": ir.DataType.INT32,
    "bool": ir.DataType.BOOL,
}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of a component.

    Attributes:
        component: Its name.
        tensors: Its weights by name.
    """

    component: str
    tensors: Tensors


def trace(kind: GraphKind, config: Config, weights: Weights | None = None) -> ir.Model:
    """Trace a graph in float32.

    Args:
        kind: What to trace.
        config: The component's configuration; fields it lacks take today's defaults.
        weights: What the graph is for. A configuration that wants other shapes is refused before the trace,
            which may be of a model many times larger.

    Returns:
        A model whose initializers carry the checkpoint's tensor names, shapes and types but no values; where
        an initializer is wanted transposed its ``metadata_props`` say so (see ``weights``).

    Raises:
        ConversionError: ``weights.shape`` or ``trace.fixed_size``.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from conversions.graphs.export_rewrites import make_traceable, translations

    dtypes = {"float": torch.float32, "float32": torch.float32, "int32": torch.int32}
    specs = kind.inputs(config)
    dynamic = tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in specs
    )
    with warnings.catch_warnings(), FakeTensorMode(), torch.no_grad():
        warnings.simplefilter("ignore")
        component = kind.create(config)
        if weights is not None:
            _demand_shapes(component, kind, weights)
        module = kind.wrap(component).eval()
        make_traceable(module)
        inputs = tuple(
            torch.zeros(_traced_shape(spec, kind.traced_sizes), dtype=dtypes[spec.dtype]) for spec in specs
        )
        exported = torch.export.export(module, inputs, dynamic_shapes=dynamic, strict=False)
        _demand_free_dimensions(exported, specs)
        program = torch.onnx.export(
            exported,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table=translations(),
        )
    assert program is not None
    model: ir.Model = program.model
    _forget_the_trace(model)
    _name_ports(model, specs, kind.outputs(config))
    simplify(model)
    model.graph.name = kind.id
    return model


def compare_with_class(kind: GraphKind, config: Config, weights: Weights) -> None:
    """Compare the shapes of weights with those that a configuration gives its class.

    Raises:
        ConversionError: ``weights.shape``.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with warnings.catch_warnings(), FakeTensorMode(), torch.no_grad():
        warnings.simplefilter("ignore")
        _demand_shapes(kind.create(config), kind, weights)


def _demand_shapes(component: Any, kind: GraphKind, weights: Weights) -> None:
    wanted = {name: tuple(each.shape) for name, each in component.state_dict().items()}
    demand_shapes(weights.component, weights.tensors, wanted, kind.renames)


def _demand_free_dimensions(exported: Any, specs: tuple[TensorSpec, ...]) -> None:
    """Stop when a dimension that should be free was fixed: the graph would be wrong elsewhere.

    A trace that fixes a size leaves either a number or a symbol whose value is one.
    """
    from torch.fx.experimental.symbolic_shapes import is_concrete_int

    placeholders = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    fixed = [
        f"{size} of {spec.name}"
        for name, spec in zip(exported.graph_signature.user_inputs, specs, strict=True)
        for axis, size in enumerate(spec.shape)
        if isinstance(size, str) and is_concrete_int(placeholders[name].meta["val"].shape[axis])
    ]
    if fixed:
        raise ConversionError(
            "trace.fixed_size",
            f"The architecture does not trace with free sizes: the trace fixed {', '.join(fixed)}.",
            "Please report this with the component's config.json.",
        )


def _traced_shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)


def _forget_the_trace(model: ir.Model) -> None:
    """Drop values, shapes and notes that hold only for the traced sizes or only help debugging."""
    graph = model.graph
    for value in list(graph.initializers.values()):
        if value.name is not None and value.name.startswith("model."):
            value.const_value = None
            value.name = value.name.removeprefix("model.")
    for node in graph:
        node.doc_string = None
        node.metadata_props.clear()
        for output in node.outputs:
            output.shape = None
            output.type = None
            output.metadata_props.clear()
    model.metadata_props.clear()
    graph.metadata_props.clear()


def _name_ports(model: ir.Model, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    for values, specs in ((model.graph.inputs, inputs), (model.graph.outputs, outputs)):
        for value, spec in zip(values, specs, strict=True):
            value.name = spec.name
            value.shape = ir.Shape(spec.shape)
            value.dtype = _ELEMENT[spec.dtype]
            value.metadata_props.clear()


def describe(model: ir.Model) -> dict[str, Any]:
    """Count the operators of a model, for messages and tests."""
    counts: dict[str, int] = {}
    for node in model.graph:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))

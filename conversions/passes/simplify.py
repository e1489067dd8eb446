"""Pass: remove what the exporter writes but no model needs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

TRANSPOSED = "sdsetup.transposed"


def simplify(model: ir.Model) -> None:
    """Simplify a traced model in place; the function it computes stays the same.

    Rules:
        1. A constant that is computed from constants is computed now.
        2. A weight that is only wanted transposed or with more axes of length one is stored that way (the
           writer of the weights transposes what ``metadata_props`` marks), so that no session has to.
        3. Two Unsqueezes in a row become one.
        4. A node that returns its input is taken out: Identity, CastLike and Cast to the same type, Div or
           Mul by one, Add of zero.
        5. Equal nodes become one, and nodes and initializers without a reader go.
    """
    from onnxscript.optimizer import fold_constants

    _drop_cast_like(model)
    fold_constants(model, input_size_limit=4096, output_size_limit=65536)
    _transpose_weights(model)
    _unsqueeze_weights(model)
    _merge_unsqueezes(model)
    _drop_neutral(model)
    common.IdentityEliminationPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)


def _drop_cast_like(model: ir.Model) -> None:
    """A float32 trace casts constants to the type of their peer, which is float32: take the cast out."""
    for node in list(model.graph):
        if node.op_type == "CastLike":
            _bypass(node, 0)


def _transpose_weights(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type != "Transpose" or node.graph is None:  # gone with another reader of its weight
            continue
        weight = node.inputs[0]
        assert weight is not None
        if not weight.is_initializer() or weight.shape is None or len(weight.shape) != 2:
            continue
        readers = [use.node for use in weight.uses()]
        if all(reader.op_type == "Transpose" for reader in readers):
            weight.metadata_props[TRANSPOSED] = "1"
            weight.shape = ir.Shape(tuple(weight.shape)[::-1])
            for reader in readers:
                _bypass(reader, 0)


def _unsqueeze_weights(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type != "Unsqueeze":
            continue
        weight, axes = node.inputs[0], _constant(node.inputs[1])
        if weight is None or axes is None or weight.shape is None:
            continue
        if weight.is_initializer() and weight.const_value is None and len(weight.uses()) == 1:
            weight.shape = ir.Shape(np.expand_dims(np.empty(weight.shape.numpy()), tuple(axes.numpy())).shape)
            _bypass(node, 0)


def _merge_unsqueezes(model: ir.Model) -> None:
    for node in list(model.graph):
        inner = (
            node.inputs[0].producer() if node.op_type == "Unsqueeze" and node.inputs[0] is not None else None
        )
        if inner is None or inner.op_type != "Unsqueeze" or len(inner.outputs[0].uses()) != 1:
            continue
        first, second = (_constant(each.inputs[1]) for each in (inner, node))
        if (
            first is None
            or second is None
            or min(second.numpy()) <= max(first.numpy())
            or min(first.numpy()) < 0
        ):
            continue  # only appended axes keep their numbers
        axes = ir.node("Constant", [], {"value_ints": [*first.numpy().tolist(), *second.numpy().tolist()]})
        model.graph.insert_before(node, axes)
        node.replace_input_with(0, inner.inputs[0])
        node.replace_input_with(1, axes.outputs[0])
        model.graph.remove(inner, safe=True)


def _drop_neutral(model: ir.Model) -> None:
    neutral = {"Div": 1.0, "Mul": 1.0, "Add": 0.0}
    for node in list(model.graph):
        if node.op_type not in neutral:
            continue
        constant = _constant(node.inputs[1])
        if constant is not None and constant.size == 1 and constant.numpy().item() == neutral[node.op_type]:
            _bypass(node, 0)


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    return None if value is None else ir.convenience.get_const_tensor(value)


def _bypass(node: ir.Node, source: int) -> None:
    """Let the readers of a node read one of its inputs instead."""
    replacement = node.inputs[source]
    assert replacement is not None
    output = node.outputs[0]
    if output.is_graph_output():
        return
    ir.convenience.replace_all_uses_with(output, replacement)
    assert node.graph is not None
    node.graph.remove(node, safe=True)

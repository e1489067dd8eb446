"""Pass: a bias, a summand and the group normalisation of their sum as one operator."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import take_place
from conversions.shape_inference import infer_shapes

DOMAIN = "com.microsoft"


def fuse_skip_group_norm(model: ir.Model) -> int:
    """Write Conv's bias, Add and ``com.microsoft.GroupNorm`` as ``com.microsoft.SkipGroupNorm``, in place.

    For providers whose convolution adds its bias by a kernel of its own. Channels stay first, as they were.

    Rules:
        1. One input of the Add is a Conv that nothing else reads; its bias moves to the operator.
        2. The other input has the same shape (the residual of a block), or is the Unsqueeze of a [N, C] value
           to [N, C, 1, 1] (the embedding of the timestep), which is read before it. A dimension that is not
           known until sizes are counts as equal to another such one.
        3. Conv, bias and summand are of one type; a norm that stays in float32 is between Casts, and so is
           left alone.
        4. Scale and shift are initializers.
        5. Other readers of the sum read the second output.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were written.

    Source: com.microsoft.SkipGroupNorm in ONNX Runtime's ContribOperators.md.
    """
    norms = [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, "GroupNorm")]
    if norms:
        infer_shapes(model)
    return sum(_fuse(model.graph, node) for node in norms)


def _fuse(graph: ir.Graph, norm: ir.Node) -> bool:
    total, scale, shift = norm.inputs
    adding = total.producer() if total is not None else None
    if total is None or adding is None or (adding.domain, adding.op_type) != ("", "Add"):
        return False
    if norm.attributes.get_int("channels_last", 1):
        return False
    if any(each is None or not each.is_initializer() for each in (scale, shift)):
        return False
    for convolved, summand in (adding.inputs, reversed(adding.inputs)):
        convolution = _biased_convolution(convolved)
        skip = _skip(convolved, summand) if convolution is not None else None
        if convolution is not None and skip is not None:
            break
    else:
        return False
    bias = convolution.inputs[2]
    convolution.resize_inputs(2)
    read_again = len(total.uses()) > 1 or total.is_graph_output()
    fused = ir.node(
        "SkipGroupNorm",
        [convolution.outputs[0], scale, shift, skip, bias],
        attributes={attribute.name: attribute.value for attribute in norm.attributes.values()},
        domain=DOMAIN,
        num_outputs=2 if read_again else 1,
        name=f"{norm.name or norm.outputs[0].name}_skip",
    )
    graph.insert_before(adding, fused)
    take_place(fused.outputs[0], norm.outputs[0])
    if read_again:
        take_place(fused.outputs[1], total)
    graph.remove([norm, adding], safe=True)
    return True


def _biased_convolution(value: ir.Value | None) -> ir.Node | None:
    """Return the Conv with a bias whose result is this value, where it has one reader."""
    node = value.producer() if value is not None else None
    if value is None or node is None or (node.domain, node.op_type) != ("", "Conv"):
        return None
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return node if alone and len(node.inputs) == 3 and node.inputs[2] is not None else None


def _skip(convolved: ir.Value | None, summand: ir.Value | None) -> ir.Value | None:
    """Return the summand in a form that the operator takes."""
    if convolved is None or summand is None or convolved.shape is None or summand.shape is None:
        return None
    if convolved.dtype is not summand.dtype:
        return None
    if convolved.shape == summand.shape:
        return summand
    view = summand.producer()
    if view is None or (view.domain, view.op_type) != ("", "Unsqueeze"):
        return None
    flat = view.inputs[0]
    if flat is None or flat.shape is None or len(flat.shape) != 2 or summand.shape[2:] != (1, 1):
        return None
    (batch, channels), (images, wanted) = flat.shape, convolved.shape[:2]
    broadcast = isinstance(batch, int) and batch != images
    return flat if isinstance(channels, int) and channels == wanted and not broadcast else None

"""DirectML's rules, one after the other: nodes that it takes, and nodes that it does not."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from conversions.providers.ep_partition.rules import ATTRIBUTE_RULES, SHAPE_RULES
from conversions.providers.kernels import load_table

RESIZE = "y = Resize <{}> (x, , s)"
ATTENTION = "com.microsoft.Attention <num_heads = 2{}>"


def first_node(body: str, shape: str = "2, 4, 8, 8", outputs: str = "") -> ir.Node:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[{shape}] x, float[{shape}] s) => (float[] y{outputs})
    <float w = {{1}}, float[1, 4, 8, 8] alike = {{{", ".join(["0"] * 256)}}}> {{ {body} }}
    """
    return next(iter(ir.from_proto(onnx.parser.parse_model(text)).graph))


TAKEN = [
    ("no_cubic", RESIZE.format('mode = "linear"')),
    ("no_cubic", "y = Resize(x, , s)"),
    ("no_cubic", RESIZE.format("exclude_outside = 0, extrapolation_value = 0.0")),
    ("one_output", "y = Dropout(x)"),
    ("no_statistics", "y = LayerNormalization(x, s)"),
    ("no_statistics", "y, m, v = LayerNormalization(x, s)"),
    ("no_statistics", "y, m, v, t = com.microsoft.SkipLayerNormalization(x, s) z = Neg(t)"),
    ("five_inputs", "y = com.microsoft.BiasThings(x, x, x, x, x)"),
    ("no_reduction", "y = ScatterND(x, s, x)"),
    ("no_reduction", 'y = ScatterND <reduction = "none"> (x, s, x)'),
    ("inference_only", "y = BatchNormalization(x, s, s, s, s)"),
    ("inference_only", "y = BatchNormalization <training_mode = 0> (x, s, s, s, s)"),
    ("row_major_indices", "y = MaxPool <kernel_shape = [1, 1], storage_order = 0> (x)"),
    ("sequence_major", "y = LSTM <layout = 0> (x, s, s)"),
    ("no_wrap", "y = Pad(x, s)"),
    ("no_wrap", 'y = Pad <mode = "constant"> (x, s)'),
    ("no_wrap", 'y = Pad <mode = "reflect"> (x, s)'),
    ("no_wrap", 'y = Pad <mode = "edge"> (x, s)'),
    ("no_past", f"y = {ATTENTION.format('')} (x, s, s, s)"),
    ("no_past", f"y = {ATTENTION.format('')} (x, s, s, s, , s)"),
    ("no_past", f"y = {ATTENTION.format(', unidirectional = 0')} (x, s)"),
    ("four_or_eight_bits", "y = com.microsoft.MatMulNBits <bits = 4> (x, s, s)"),
    ("four_or_eight_bits", "y = com.microsoft.MatMulNBits <bits = 8> (x, s, s)"),
    ("four_or_eight_bits", "y = com.microsoft.MatMulNBits (x, s, s)"),
    ("constant_scale", "y = DequantizeLinear(x, w)"),
    ("constant_scale", "y = com.microsoft.QLinearAdd(x, w, s, w)"),
    ("known_equation", "y = Einsum(x, s)"),
]
LEFT = [
    ("no_cubic", RESIZE.format('mode = "cubic"'), "Resize with mode 'cubic'"),
    ("no_cubic", RESIZE.format("exclude_outside = 1"), "Resize with exclude_outside"),
    ("no_cubic", RESIZE.format("extrapolation_value = 0.5"), "Resize with an extrapolation value"),
    ("one_output", "y, m = Dropout(x)", "a second output"),
    ("no_statistics", "y, m = LayerNormalization(x, s) z = Neg(m)", "mean or variance as an output"),
    ("no_statistics", "y, m, v = LayerNormalization(x, s) z = Neg(v)", "mean or variance as an output"),
    ("five_inputs", "y = com.microsoft.BiasThings(x, x, x, x, x, x)", "more than five inputs"),
    ("no_reduction", 'y = ScatterND <reduction = "add"> (x, s, x)', "a reduction"),
    ("inference_only", "y = BatchNormalization <training_mode = 1> (x, s, s, s, s)", "training_mode"),
    (
        "row_major_indices",
        "y = MaxPool <kernel_shape = [1, 1], storage_order = 1> (x)",
        "column-major indices",
    ),
    ("sequence_major", "y = LSTM <layout = 1> (x, s, s)", "batch-major layout"),
    ("no_wrap", 'y = Pad <mode = "wrap"> (x, s)', "Pad with mode 'wrap'"),
    ("no_past", f"y = {ATTENTION.format('')} (x, s, s, s, s)", "past or present state"),
    ("no_past", f"y = {ATTENTION.format('')} (x, s, s, s, , s, s)", "past or present state"),
    ("no_past", f"y, p = {ATTENTION.format('')} (x, s)", "past or present state"),
    ("no_past", f"y = {ATTENTION.format(', unidirectional = 1')} (x, s)", "unidirectional"),
    ("no_past", f"y = {ATTENTION.format(', do_rotary = 1')} (x, s)", "do_rotary"),
    (
        "no_past",
        f"y = {ATTENTION.format(', past_present_share_buffer = 1')} (x, s)",
        "past_present_share_buffer",
    ),
    (
        "four_or_eight_bits",
        "y = com.microsoft.MatMulNBits <bits = 2> (x, s, s)",
        "neither 4 nor 8 bits",
    ),
    ("constant_scale", "y = DequantizeLinear(x, s)", "a computed scale"),
    ("constant_scale", "y = com.microsoft.QLinearAdd(x, w, s, s)", "a computed scale"),
    ("known_equation", "y = Einsum(x, s, x)", "Einsum of more than two tensors"),
]


@pytest.mark.parametrize(("rule", "body"), TAKEN)
def test_a_node_that_a_rule_lets_through(rule: str, body: str) -> None:
    assert ATTRIBUTE_RULES[rule](first_node(body)) == ""


@pytest.mark.parametrize(("rule", "body", "reason"), LEFT)
def test_a_node_that_a_rule_leaves_to_the_cpu(rule: str, body: str, reason: str) -> None:
    assert ATTRIBUTE_RULES[rule](first_node(body)) == reason


def test_a_statistic_that_the_graph_gives_is_wanted_too() -> None:
    node = first_node("y, m = LayerNormalization(x, s)", outputs=", float[] m")
    assert ATTRIBUTE_RULES["no_statistics"](node) == "mean or variance as an output"


def test_the_kernel_table_names_these_rules_and_no_other() -> None:
    named = {kernel.rule for kernel in load_table("directml").values()} - {""}
    assert named == set(ATTRIBUTE_RULES) == {rule for rule, _ in TAKEN} == {rule for rule, *_ in LEFT}


MHA = "com.microsoft.MultiHeadAttention"
GROUP_NORM = "y = com.microsoft.GroupNorm <groups = 2, activation = 1> "


@pytest.mark.parametrize(
    ("operator", "body", "shape", "reason"),
    [
        ("MatMul", "y = MatMul(x, s)", "1, 1, 1, 1", ""),
        ("MatMul", "y = MatMul(x, s)", "1, 1, 1, 1, 1", "MatMul of 5 dimensions; 4 is the most"),
        ("MatMul", "y = MatMul(w, s)", "1, 1, 1, 1, 1, 1", "MatMul of 6 dimensions; 4 is the most"),
        ("com.microsoft.FusedMatMul", "y = com.microsoft.FusedMatMul(x, s)", "1, 1, 1, 1", ""),
        (
            "com.microsoft.FusedMatMul",
            "y = com.microsoft.FusedMatMul(x, s)",
            "1, 1, 1, 1, 1",
            "FusedMatMul of 5 dimensions; 4 is the most",
        ),
        ("com.microsoft.GroupNorm", f"{GROUP_NORM} (x, w, w)", "2, 4, 8, 8", ""),
        (
            "com.microsoft.GroupNorm",
            f"{GROUP_NORM} (x, w, w)",
            "2, 4, 8",
            "GroupNorm of other than 4 dimensions",
        ),
        (
            "com.microsoft.GroupNorm",
            f"{GROUP_NORM} (x, w)",
            "2, 4, 8, 8",
            "GroupNorm without exactly three inputs",
        ),
        (MHA, f"y = {MHA} <num_heads = 4> (x, s, s)", "1, 4, 8", ""),
        (MHA, f"y = {MHA} <num_heads = 4> (x, s, s, , , alike)", "1, 4, 8", ""),
        (
            MHA,
            f"y = {MHA} <num_heads = 2> (x, s, s, , , alike)",
            "1, 4, 8",
            "an attention bias that would have to be broadcast",
        ),
        (
            MHA,
            f"y = {MHA} <num_heads = 4> (x, s, s, , , alike)",
            "2, 4, 8",
            "an attention bias that would have to be broadcast",
        ),
        (MHA, f"y = {MHA} <num_heads = 2> (x, s, s, , , w)", "1, 4, 8", ""),
    ],
)
def test_shapes_that_a_session_fails_on(operator: str, body: str, shape: str, reason: str) -> None:
    assert SHAPE_RULES[operator](first_node(body, shape)) == reason


def test_a_rank_that_is_not_known_is_no_reason() -> None:
    product = first_node("y = MatMul(x, s)")
    norm = first_node(f"{GROUP_NORM} (x, w, w)")
    for node in (product, norm):
        for value in node.inputs:
            assert value is not None
            value.shape = None
    assert SHAPE_RULES["MatMul"](product) == SHAPE_RULES["com.microsoft.GroupNorm"](norm) == ""


@pytest.mark.parametrize(
    ("attributes", "sizes", "refused"),
    [
        ("allowzero = 1", "2, -1", True),
        ("allowzero = 0", "2, -1", False),
        ("allowzero = 1", "2, 256", False),
    ],
)
def test_a_reshape_that_allows_zero_must_know_its_sizes(attributes: str, sizes: str, refused: bool) -> None:
    node = first_node(f"y = Reshape <{attributes}> (x, sizes)")
    node.replace_input_with(1, ir.Value(const_value=ir.tensor([int(size) for size in sizes.split(",")])))
    reason = "Reshape with allowzero and a -1 in its shape" if refused else ""
    assert SHAPE_RULES["Reshape"](node) == reason
    node.replace_input_with(1, ir.Value(name="computed"))
    assert SHAPE_RULES["Reshape"](node) == ""

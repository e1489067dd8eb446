"""Small graphs to ask DirectML about: operators, types, opsets, blocks of the models, planted faults.

All tensors have odd element counts: the Direct3D under Wine has no shader for some float32 kernels otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx


@dataclass(frozen=True, kw_only=True)
class Case:
    """One graph.

    Attributes:
        name: Says what is in it.
        text: The graph in ONNX's textual form.
        sizes: Sizes of its free dimensions.
    """

    name: str
    text: str
    sizes: dict[str, int]

    def model(self) -> onnx.ModelProto:
        """Parse the graph, name its nodes and forget the shapes of its outputs."""
        proto = onnx.parser.parse_model(self.text)
        for number, node in enumerate(proto.graph.node):
            node.name = f"n{number}_{node.op_type}"
        for value in proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        return proto


def _case(
    name: str, inputs: str, output: str, body: str, *, opset: int = 18, sizes: dict[str, int] | None = None
) -> Case:
    head, _, nodes = body.rpartition("|")
    constants = f"<{head.strip()}>" if head else ""
    text = (
        f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
        f" g ({inputs}) => ({output}[] y) {constants} {{ {nodes} }}"
    )
    return Case(name=name, text=text, sizes=sizes or {})


F16, F32 = "float16", "float"
BLOCK = "[1, 3, 5, 7]"

UNARY = (
    "Abs Ceil Cos Elu Erf Exp Floor Identity LeakyRelu Log Neg Reciprocal Relu Sigmoid Sin Softplus Softsign"
    " Sqrt Tanh"
)
BINARY = "Add Sub Mul Div Pow Max Min"


def _elementwise() -> Iterator[Case]:
    for operator in UNARY.split():
        yield _case(f"{operator} f16", f"{F16}{BLOCK} x", F16, f"y = {operator}(x)")
    for operator in ("Relu", "Sigmoid", "Sin", "Cos", "Erf", "Identity", "Sqrt"):
        for opset in (7, 13, 22):
            if operator == "Erf" and opset == 7:
                continue
            yield _case(
                f"{operator} f32 opset {opset}", f"{F32}{BLOCK} x", F32, f"y = {operator}(x)", opset=opset
            )
    for operator in BINARY.split():
        for dtype in (F16, F32, "int32", "int64", "double", "bfloat16", "uint8"):
            if operator == "Pow" and dtype in ("bfloat16", "uint8"):
                continue
            body = f"y = {operator}(x, x)"
            yield _case(f"{operator} {dtype}", f"{dtype}{BLOCK} x", dtype, body)
    for dtype in ("int32", "int64", F16, F32):
        for operator in ("Equal", "Greater", "Less"):
            yield _case(f"{operator} {dtype}", f"{dtype}{BLOCK} x", "bool", f"y = {operator}(x, x)")
    for operator in ("And", "Or", "Xor"):
        yield _case(operator, f"bool{BLOCK} x", "bool", f"y = {operator}(x, x)")
    yield _case("Not", f"bool{BLOCK} x", "bool", "y = Not(x)")
    for count in (2, 3):
        arguments = ", ".join("x" * count)
        for operator in ("Max", "Sum", "Mean"):
            body = f"y = {operator}({arguments})"
            yield _case(f"{operator} of {count}", f"{F16}{BLOCK} x", F16, body)
    for dtype in (F16, F32, "int64"):
        yield _case(f"Clip {dtype}", f"{dtype}{BLOCK} x", dtype, f"{dtype} low = {{0}} | y = Clip(x, low)")
        yield _case(f"Where {dtype}", f"bool{BLOCK} c, {dtype}{BLOCK} x", dtype, "y = Where(c, x, x)")
    for source, target, number in (
        (F16, F32, 1), (F32, F16, 10), ("int64", F16, 10), ("int32", F16, 10),
        (F16, "int64", 7), (F32, "bool", 9), (F32, "double", 11), (F32, "bfloat16", 16),
    ):  # fmt: skip
        for opset in (13, 21, 23):
            name = f"Cast {source} to {target} opset {opset}"
            yield _case(name, f"{source}{BLOCK} x", target, f"y = Cast <to = {number}> (x)", opset=opset)


def _layers() -> Iterator[Case]:
    for dtype in (F16, F32, "double"):
        for opset in (18, 22):
            note = f"{dtype} opset {opset}"
            kernel = f"{dtype}{BLOCK} x, {dtype}[5, 3, 3, 3] w"
            yield _case(f"Conv {note}", kernel, dtype, "y = Conv <pads = [1, 1, 1, 1]> (x, w)", opset=opset)
            turned = f"{dtype}{BLOCK} x, {dtype}[3, 5, 3, 3] w"
            yield _case(f"ConvTranspose {note}", turned, dtype, "y = ConvTranspose(x, w)", opset=opset)
            scaled = f"{dtype}{BLOCK} x, {dtype}[3] s, {dtype}[3] b"
            yield _case(
                f"InstanceNormalization {note}",
                scaled,
                dtype,
                "y = InstanceNormalization(x, s, b)",
                opset=opset,
            )
            pooled = f"{dtype}{BLOCK} x"
            yield _case(
                f"AveragePool {note}",
                pooled,
                dtype,
                "y = AveragePool <kernel_shape = [3, 3]> (x)",
                opset=opset,
            )
            yield _case(
                f"MaxPool {note}", pooled, dtype, "y = MaxPool <kernel_shape = [3, 3]> (x)", opset=opset
            )
            yield _case(f"GlobalAveragePool {note}", pooled, dtype, "y = GlobalAveragePool(x)", opset=opset)
    for dtype in (F16, F32, "int32", "int64"):
        yield _case(f"MatMul {dtype}", f"{dtype}[3, 5, 7] x, {dtype}[3, 7, 9] w", dtype, "y = MatMul(x, w)")
        yield _case(f"Gemm {dtype}", f"{dtype}[5, 7] x, {dtype}[7, 9] w", dtype, "y = Gemm(x, w)")
    for rank in (4, 5):
        ones = "1, " * (rank - 2)
        yield _case(f"MatMul of {rank} dimensions", f"{F16}[{ones}5, 5] x", F16, "y = MatMul(x, x)")
    for dtype in (F16, F32):
        norm = f"{dtype}[1, 5, 9] x, {dtype}[9] s, {dtype}[9] b"
        yield _case(f"LayerNormalization {dtype}", norm, dtype, "y = LayerNormalization(x, s, b)", opset=17)
        yield _case(f"LayerNormalization without bias {dtype}", norm, dtype, "y = LayerNormalization(x, s)")
        batch = f"{dtype}{BLOCK} x, {dtype}[3] s, {dtype}[3] b, {dtype}[3] m, {dtype}[3] v"
        yield _case(f"BatchNormalization {dtype}", batch, dtype, "y = BatchNormalization(x, s, b, m, v)")
        for opset in (13, 18, 22):
            yield _case(
                f"Softmax {dtype} opset {opset}", f"{dtype}[3, 5, 7] x", dtype, "y = Softmax(x)", opset=opset
            )
        group = f"{dtype}[1, 6, 5, 7] x, {dtype}[6] s, {dtype}[6] b"
        body = "y = GroupNormalization <num_groups = 3> (x, s, b)"
        yield _case(f"GroupNormalization {dtype} opset 21", group, dtype, body, opset=21)
        yield _case(f"Gelu {dtype} opset 20", f"{dtype}{BLOCK} x", dtype, "y = Gelu(x)", opset=20)
        yield _case(f"HardSwish {dtype}", f"{dtype}{BLOCK} x", dtype, "y = HardSwish(x)")
        yield _case(f"Mish {dtype}", f"{dtype}{BLOCK} x", dtype, "y = Mish(x)")
    for mode in ("nearest", "linear", "cubic"):
        body = f'float[4] s = {{1, 1, 2, 2}} | y = Resize <mode = "{mode}"> (x, , s)'
        for opset in (18, 19):
            yield _case(f"Resize {mode} opset {opset}", f"{F16}{BLOCK} x", F16, body, opset=opset)
    for mode in ("constant", "reflect", "edge", "wrap"):
        body = f'int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}} | y = Pad <mode = "{mode}"> (x, p)'
        yield _case(f"Pad {mode}", f"{F16}{BLOCK} x", F16, body, opset=19 if mode == "wrap" else 18)
    for equation in (
        "ij,jk->ik",
        "bij,bjk->bik",
        "bhij,bhjk->bhik",
        "ij->ji",
        "bhid,bhjd->bhij",
        "ijk,ijk->i",
        "ii->i",
    ):
        left = equation.split("->")[0].split(",")
        values = [
            f"{F16}[{', '.join('3' * len(term))}] {name}" for term, name in zip(left, "xz", strict=False)
        ]
        body = f'y = Einsum <equation = "{equation}"> ({", ".join("xz"[: len(left)])})'
        yield _case(f"Einsum {equation}", ", ".join(values), F16, body)


def _moving() -> Iterator[Case]:
    for dtype in (F16, F32, "int64", "int32", "double", "bool", "bfloat16"):
        yield _case(
            f"Transpose {dtype}", f"{dtype}{BLOCK} x", dtype, "y = Transpose <perm = [0, 2, 3, 1]> (x)"
        )
        yield _case(
            f"Reshape {dtype}", f"{dtype}{BLOCK} x", dtype, "int64[2] s = {3, -1} | y = Reshape(x, s)"
        )
        for shape in ("3, -1", "5, 21"):
            body = f"int64[2] s = {{{shape}}} | y = Reshape <allowzero = 1> (x, s)"
            yield _case(f"Reshape {dtype} allowzero to {shape}", f"{dtype}{BLOCK} x", dtype, body)
        yield _case(f"Concat {dtype}", f"{dtype}{BLOCK} x", dtype, "y = Concat <axis = 1> (x, x)")
        body = "int64[1] f = {1}, int64[1] t = {3}, int64[1] a = {3} | y = Slice(x, f, t, a)"
        yield _case(f"Slice {dtype}", f"{dtype}{BLOCK} x", dtype, body)
    for indices in ("int32", "int64"):
        yield _case(f"Gather {indices}", f"{F16}[9, 5] x, {indices}[1, 7] i", F16, "y = Gather(x, i)")
    yield _case(
        "GatherElements", f"{F16}[5, 3] x, int64[5, 3] i", F16, "y = GatherElements <axis = 1> (x, i)"
    )
    yield _case("GatherND", f"{F16}[5, 3] x, int64[3, 1] i", F16, "y = GatherND(x, i)")
    for reduction in ("none", "add", "mul"):
        attribute = f'<reduction = "{reduction}">'
        body = f"y = ScatterElements {attribute} (x, i, x)"
        yield _case(f"ScatterElements {reduction}", f"{F16}[5, 3] x, int64[5, 3] i", F16, body)
        body = f"y = ScatterND {attribute} (x, i, u)"
        yield _case(f"ScatterND {reduction}", f"{F16}[5, 3] x, int64[1, 1] i, {F16}[1, 3] u", F16, body)
    for opset in (18, 20, 22):
        axes = "int64[1] a = {1} | "
        for operator in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"):
            name = f"{operator} opset {opset}"
            yield _case(name, f"{F16}{BLOCK} x", F16, f"{axes}y = {operator}(x, a)", opset=opset)
        yield _case(
            f"ArgMax opset {opset}", f"{F16}[5, 7] x", "int64", "y = ArgMax <axis = 1> (x)", opset=opset
        )
    yield _case("ArgMax int32", "int32[1, 7] x", "int64", "y = ArgMax <axis = 1> (x)")
    yield _case("Split", f"{F16}[1, 6, 5] x", F16, "y, z = Split <axis = 1, num_outputs = 2> (x)")
    yield _case("Expand", f"{F16}[1, 3, 1] x", F16, "int64[3] s = {5, 3, 7} | y = Expand(x, s)")
    yield _case("Tile", f"{F16}[1, 3] x", F16, "int64[2] r = {3, 3} | y = Tile(x, r)")
    yield _case("Unsqueeze", f"{F16}[3, 5] x", F16, "int64[1] a = {0} | y = Unsqueeze(x, a)")
    yield _case("Squeeze", f"{F16}[1, 5] x", F16, "int64[1] a = {0} | y = Squeeze(x, a)")
    yield _case("Flatten", f"{F16}{BLOCK} x", F16, "y = Flatten(x)")
    yield _case("CumSum", f"{F16}[3, 5] x", F16, "int64 a = {1} | y = CumSum(x, a)")
    yield _case("Trilu", f"{F16}[5, 5] x", F16, "y = Trilu(x)")
    yield _case("NonZero", f"{F16}[5, 5] x", "int64", "y = NonZero(x)")
    yield _case("DepthToSpace", f"{F16}[1, 4, 3, 5] x", F16, "y = DepthToSpace <blocksize = 2> (x)")
    yield _case("SpaceToDepth", f"{F16}[1, 3, 6, 10] x", F16, "y = SpaceToDepth <blocksize = 2> (x)")
    yield _case("Shape", f"{F16}[n, 3, 5] x", "int64", "y = Shape(x)", sizes={"n": 3})
    body = "int64[1] k = {3} | y, i = TopK(x, k)"
    yield _case("TopK", f"{F16}[3, 7] x", F16, body)
    yield _case("GridSample", f"{F32}{BLOCK} x, {F32}[1, 3, 3, 2] g", F32, "y = GridSample(x, g)", opset=16)


def _microsoft() -> Iterator[Case]:
    for dtype in (F16, F32):
        for operator in ("Gelu", "FastGelu", "QuickGelu"):
            yield _case(
                f"{operator} {dtype}", f"{dtype}[1, 5, 7] x", dtype, f"y = com.microsoft.{operator}(x)"
            )
        biased = f"{dtype}[1, 5, 7] x, {dtype}[7] b"
        yield _case(f"BiasGelu {dtype}", biased, dtype, "y = com.microsoft.BiasGelu(x, b)")
        split = f"{dtype}[1, 5, 2560] x, {dtype}[2560] b"
        yield _case(f"BiasSplitGelu {dtype}", split, dtype, "y = com.microsoft.BiasSplitGelu(x, b)")
        tripled = f"{dtype}[1, 5, 320] x, {dtype}[320] b, {dtype}[1, 5, 320] r"
        yield _case(f"BiasAdd {dtype}", tripled, dtype, "y = com.microsoft.BiasAdd(x, b, r)")
        group = f"{dtype}[1, 9, 5, 7] x, float[9] s, float[9] b"
        for activation in (0, 1):
            for last in (0, 1):
                settings = f"<groups = 3, activation = {activation}, channels_last = {last}>"
                inputs = f"{dtype}[1, 5, 7, 9] x, float[9] s, float[9] b" if last else group
                name = f"GroupNorm {dtype} activation {activation} channels_last {last}"
                yield _case(name, inputs, dtype, f"y = com.microsoft.GroupNorm {settings} (x, s, b)")
        skip = f"{dtype}[1, 5, 7] x, {dtype}[7] s, {dtype}[7] b"
        body = "y = com.microsoft.SkipLayerNormalization(x, x, s, b)"
        yield _case(f"SkipLayerNormalization {dtype}", skip, dtype, body)
        body = "y, , , sum = com.microsoft.SkipLayerNormalization(x, x, s, b)"
        yield _case(f"SkipLayerNormalization with its sum {dtype}", skip, dtype, body)
        pair = f"{dtype}[3, 5] x, {dtype}[7, 5] w"
        yield _case(f"FusedMatMul {dtype}", pair, dtype, "y = com.microsoft.FusedMatMul <transB = 1> (x, w)")
        conv = f"{dtype}[1, 5, 7, 3] x, {dtype}[5, 3, 3, 3] w"
        yield _case(f"NhwcConv {dtype}", conv, dtype, "y = com.microsoft.NhwcConv(x, w)")
        attend = f"{dtype}[1, 9, 12] q, {dtype}[1, 5, 12] k, {dtype}[1, 5, 12] v"
        operator = "y = com.microsoft.MultiHeadAttention <num_heads = 3>"
        yield _case(f"MultiHeadAttention {dtype}", attend, dtype, f"{operator} (q, k, v)")
        for note, shape in (("whole", "[1, 3, 9, 5]"), ("to be broadcast", "[1, 1, 9, 5]")):
            inputs = f"{attend}, {dtype}{shape} a"
            name = f"MultiHeadAttention with a bias {note} {dtype}"
            yield _case(name, inputs, dtype, f"{operator} (q, k, v, , , a)")
        absent = f"{dtype}[1, 5, 7, 32] x, float[32] s, float[32] b"
        body = "y = com.microsoft.SkipGroupNorm <groups = 32, activation = 0> (x, s, b, x)"
        yield _case(f"SkipGroupNorm {dtype}", absent, dtype, body)


def _graphs() -> Iterator[Case]:
    """Several nodes: shape arithmetic, control flow, blocks of the models, nodes without a kernel."""
    free = f"{F16}[batch, 3, height, width] x"
    sizes = {"batch": 1, "height": 5, "width": 7}
    yield _case(
        "a shape computed from a free dimension",
        free,
        F16,
        "int64[1] m = {-1}, int64[1] z = {0} | a = Relu(x) s = Shape(x) b = Gather(s, z)"
        " t = Concat <axis = 0> (b, m) r = Reshape(a, t) y = Relu(r)",
        sizes=sizes,
    )
    yield _case(
        "a shape given as an input",
        f"{F16}{BLOCK} x, int64[2] s",
        F16,
        "a = Relu(x) r = Reshape(a, s) y = Relu(r)",
    )
    yield _case(
        "a shape computed from data",
        f"{F16}[5, 5] x",
        F16,
        "a = Relu(x) h = ReduceMax <keepdims = 0> (a) n = NonZero(a) s = Shape <start = 1> (n)"
        " e = Expand(h, s) y = Relu(e)",
    )
    branch = "=> (float16[1, 3, 5, 7] b) { b = %s(x) }"
    body = (
        f"a = Relu(x) i = If (c) <then_branch = t () {branch % 'Sigmoid'},"
        f" else_branch = e () {branch % 'Tanh'}> y = Mul(a, i)"
    )
    yield _case("control flow", f"{F16}{BLOCK} x, bool c", F16, body)
    yield _case(
        "a convolution of opset 22 between others",
        f"{F16}{BLOCK} x, {F16}[3, 3, 1, 1] w",
        F16,
        "a = Relu(x) c = Conv(a, w) s = Sigmoid(c) y = Mul(s, c)",
        opset=22,
    )
    yield _case(
        "bfloat16 between casts",
        f"{F16}{BLOCK} x",
        F16,
        "a = Relu(x) b = Cast <to = 16> (a) c = Mul(b, b) d = Cast <to = 10> (c) y = Relu(d)",
    )
    yield _case(
        "a residual block",
        f"{F16}[1, 9, 5, 7] x, {F16}[9] s, {F16}[9] b, {F16}[9, 9, 3, 3] w",
        F16,
        "n = com.microsoft.GroupNorm <groups = 3, activation = 1, channels_last = 0> (x, s, b)"
        " c = Conv <pads = [1, 1, 1, 1]> (n, w) y = Add(c, x)",
    )
    yield _case(
        "a transformer block",
        f"{F16}[1, 5, 12] x, {F16}[12] s, {F16}[12] b, {F16}[12, 12] w, {F16}[12, 12] u,"
        f" {F16}[12, 12] z, {F16}[12, 24] p",
        F16,
        "l = LayerNormalization(x, s, b) q = MatMul(l, w) k = MatMul(l, u) v = MatMul(l, z)"
        " a = com.microsoft.MultiHeadAttention <num_heads = 3> (q, k, v) o = MatMul(a, w) r = Add(o, x)"
        " h = MatMul(r, p) i, g = Split <axis = 2, num_outputs = 2> (h) t = com.microsoft.Gelu(g)"
        " m = Mul(i, t) y = Add(m, r)",
    )
    yield _case(
        "two branches around a node without a kernel",
        f"{F16}[1, 3, 5, 7] x",
        F16,
        "float[4] s = {1, 1, 2, 2} | a = Relu(x) b = Sigmoid(a)"
        ' c = Resize <mode = "cubic"> (a, , s) d = Resize <mode = "nearest"> (b, , s) y = Mul(c, d)',
    )
    yield _case(
        "the end of a text",
        f"int32[1, 7] t, {F16}[1, 7, 5] x",
        F16,
        "int64[2] a = {1, 2}, int64[3] e = {1, 1, 5} | m = ArgMax <axis = 1, keepdims = 0> (t)"
        " u = Unsqueeze(m, a) w = Expand(u, e) g = GatherElements <axis = 1> (x, w) y = Relu(g)",
    )
    yield _case(
        "a time embedding",
        "float[1] t",
        F16,
        "float[1, 9] f = {1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2}, int64[1] a = {1} | u = Unsqueeze(t, a)"
        " m = Mul(u, f) s = Sin(m) c = Cos(m) k = Concat <axis = 1> (s, c) y = Cast <to = 10> (k)",
    )


def cases() -> tuple[Case, ...]:
    """All graphs."""
    return (*_elementwise(), *_layers(), *_moving(), *_microsoft(), *_graphs())

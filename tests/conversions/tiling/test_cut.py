"""Which graphs are cut, where, and which are not."""

from __future__ import annotations

import lzma
from itertools import pairwise
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from conversions.errors import ConversionError
from conversions.graphs import SHIPPED_FOLDER
from conversions.tiling.cut import cut
from tests.demo_package import demo_package

RESIZE = """Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric",
    nearest_mode = "floor">(x, , scales)"""


def graph(body: str, *, scales: str = "1, 1, 2, 2") -> ir.Model:
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
        decoder (float[batch, 4, height, width] x) => (float[batch, 4, tall, wide] y)
        <float[4] scales = {{{scales}}}, float[4] ones = {{1, 1, 1, 1}}, int64[1] axis = {{1}},
         float[1, 4, 1, 2] columns = {{1, 2, 3, 4, 5, 6, 7, 8}}, float[4] weights = {{1, 2, 3, 4}},
         float[4, 4, 3, 3] kernel = {{{", ".join(["1"] * 144)}}}> {{ {body} }}"""
    )


def shipped(path: Path) -> ir.Model:
    """Read a graph that ships; what follows its one input are its weights, without values."""
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(lzma.decompress(path.read_bytes())))
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        model.graph.initializers[str(value.name)] = value
    return model


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    package = demo_package(tmp_path_factory.mktemp("cut") / "package", precision="fp16")
    return ir.load(package.graph("vae_decoder"))


def test_a_decoder_is_cut_where_its_norms_begin(decoder: ir.Model) -> None:
    nodes = len(list(decoder.graph))
    parts = cut(decoder)
    assert parts.head is not None and parts.foot is None
    assert len(list(decoder.graph)) == nodes, "the graph itself stays"
    assert parts.scale == 8
    assert [node.op_type for node in parts.head.graph if node.op_type == "Resize"] == []
    assert any(node.op_type == "MultiHeadAttention" for node in parts.head.graph)
    assert len(parts.pieces) == 14
    assert [len(piece.norms) for piece in parts.pieces] == [0] + [1] * 13
    for before, after in pairwise(parts.pieces):
        assert {norm.value for norm in after.norms} == set(before.measured)
    kinds = {node.op_type for piece in parts.pieces for node in piece.model.graph}
    assert not kinds & {"GroupNorm", "InstanceNormalization", "MultiHeadAttention"}


def test_halos_are_what_the_convolutions_of_a_piece_reach(decoder: ir.Model) -> None:
    for piece in cut(decoder).pieces:
        operators = [node.op_type for node in piece.model.graph]
        # Behind a Resize, a pixel of a 3x3 convolution's padding is half a pixel of what was read.
        two = operators.count("Conv") > 1 and "Resize" in operators and piece.scale > 1
        assert piece.halo == (2 if two else 1)


def test_every_weight_is_in_a_part(decoder: ir.Model) -> None:
    parts = cut(decoder)
    assert parts.head is not None
    graphs = [parts.head.graph, *(piece.model.graph for piece in parts.pieces)]
    found = {name for each in graphs for name in each.initializers}
    norms = [norm for piece in parts.pieces for norm in piece.norms]
    found |= {str(each.name) for norm in norms for each in (norm.weight, norm.bias) if each is not None}
    weights = {
        name for name, value in decoder.graph.initializers.items() if "weight" in name and value.uses()
    }
    assert weights and weights <= found


def test_what_no_later_piece_reads_is_let_go(decoder: ir.Model) -> None:
    parts = cut(decoder)
    assert parts.head is not None
    kept = {str(value.name) for value in parts.head.graph.outputs}
    for piece in parts.pieces:
        assert set(piece.inputs) <= kept
        kept = (kept | set(piece.outputs)) - piece.last_read
    assert kept == {"sample"}


def test_an_encoder_is_cut_up_to_its_last_stride(tmp_path: Path) -> None:
    package = demo_package(tmp_path / "package", precision="fp16")
    parts = cut(ir.load(package.graph("vae_encoder")))
    assert parts.head is None and parts.foot is not None
    assert (parts.first_scale, parts.scale) == (8, 8)
    assert [node.op_type for node in parts.foot.graph].count("MultiHeadAttention") == 1
    assert not [node for piece in parts.pieces for node in piece.model.graph if node.op_type == "Pad"]
    scales = [piece.scale for piece in parts.pieces]
    assert scales == sorted(scales, reverse=True)
    assert set(scales) == {1, 2, 4, 8}
    # A piece with a stride reads two pixels for each that it gives.
    assert [set(piece.inputs.values()) for piece in parts.pieces if piece.scale == 1] == [{2}]


@pytest.mark.parametrize("path", sorted(SHIPPED_FOLDER.glob("*vae_encoder*")), ids=lambda path: path.stem)
def test_the_encoders_that_ship_are_cut(path: Path) -> None:
    parts = cut(shipped(path))
    assert parts.scale == 8
    assert min(piece.scale for piece in parts.pieces) == 1


@pytest.mark.parametrize(
    ("body", "scales", "reason"),
    [
        ("y = Relu(x)", "1, 1, 2, 2", "no Resize"),
        (f"large = {RESIZE} y = Softmax(large)", "1, 1, 2, 2", "Softmax"),
        (f"large = {RESIZE} y = ReduceMean(large, axis)", "1, 1, 2, 2", "ReduceMean"),
        (f"large = {RESIZE} y = Mul(large, columns)", "1, 1, 2, 2", "differs from pixel to pixel"),
        (f"large = {RESIZE} y = Relu(large)", "1, 1, 1.5, 1.5", "whole number of times"),
        ('large = Resize<mode = "linear">(x, , scales) y = Relu(large)', "1, 1, 2, 2", "repeat pixels"),
        (f"large = {RESIZE} y = com.microsoft.Gelu(large)", "1, 1, 2, 2", "Gelu"),
    ],
)
def test_a_graph_that_cannot_be_computed_in_tiles_is_refused(body: str, scales: str, reason: str) -> None:
    with pytest.raises(ConversionError, match=reason) as caught:
        cut(graph(body, scales=scales))
    assert caught.value.code.startswith("tiling.")


def test_a_graph_of_known_operators_is_cut() -> None:
    parts = cut(graph(f"large = {RESIZE} y = Relu(large)"))
    assert len(parts.pieces) == 1
    assert parts.pieces[0].halo == 0
    assert dict(parts.pieces[0].outputs) == {"y": 2}


def test_windows_begin_at_whole_pixels_of_the_lowest_resolution_within_a_piece() -> None:
    body = f"""large = {RESIZE}
        norm = com.microsoft.GroupNorm<groups = 2, channels_last = 0, activation = 0>(large, weights, weights)
        small = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(norm, kernel)
        y = {RESIZE.replace("(x,", "(small,")}"""
    _, piece = cut(graph(body)).pieces
    assert piece.scale == 1
    assert dict(piece.inputs) == {"large": 2}
    assert dict(piece.outputs) == {"y": 2}
    assert piece.halo == 1


@pytest.mark.parametrize("path", sorted(SHIPPED_FOLDER.glob("*decoder*")), ids=lambda path: path.stem)
def test_of_the_graphs_that_ship_all_are_cut_but_sanas(path: Path) -> None:
    model = shipped(path)
    if path.name.startswith("dc_decoder"):
        with pytest.raises(ConversionError, match="cannot be computed in tiles"):
            cut(model)
        return
    parts = cut(model)
    assert parts.scale == 8
    norms = sum(len(piece.norms) for piece in parts.pieces)
    assert norms == len(parts.pieces) - 1
    # Without norms all is one piece, whose halo is what its ten convolutions reach.
    assert parts.pieces[0].halo == (9 if path.name.startswith("tiny") else 1)

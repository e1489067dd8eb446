from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from safetensors.numpy import save_file

from conversions.checkpoint.folder import open_folder
from conversions.checkpoint.safetensors_header import StoredTensor, read_header
from conversions.checkpoint.storage import Folder
from conversions.conversion import Checks, Converted, convert
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.options import Options
from conversions.passes.quantize_weights import quantize_weights, quantized_weights
from conversions.plan import make_plan
from conversions.providers.devices import CPU
from conversions.weights import stream
from conversions.weights.binding import bind
from conversions.weights.expression import Stored
from conversions.weights.quantize import (
    BLOCK,
    QuantizationScales,
    QuantizedCodes,
    ZeroPoints,
    quantizable,
    quantize,
)
from tests.conversions.graphs_for_tests import psnr, run_on_cpu

BITS = pytest.mark.parametrize("bits", [4, 8])
MATRIX = np.random.default_rng(11).standard_normal((24, 128)).astype(np.float32)


@BITS
def test_every_weight_is_within_half_a_step_of_what_its_code_stands_for(bits: int) -> None:
    found = quantize(MATRIX, bits, np.float32)
    error = np.abs(found.restored() - MATRIX).reshape(24, -1, BLOCK)
    assert found.codes.max() == (1 << bits) - 1
    # Where the zero point was rounded, an end of the range lies up to half a step outside.
    assert (error <= found.scales[..., None] * 1.001).all()
    assert error.mean() < found.scales.mean() * 0.3


@pytest.mark.parametrize(
    "block", [np.zeros(BLOCK), np.full(BLOCK, 0.5), np.full(BLOCK, -3.0), np.eye(1, BLOCK)[0]]
)
@BITS
def test_zero_stays_zero_and_constant_blocks_are_exact(block: np.ndarray, bits: int) -> None:
    matrix = np.tile(block.astype(np.float32), (3, 2))
    np.testing.assert_allclose(quantize(matrix, bits, np.float32).restored(), matrix, rtol=1e-6)


def test_codes_are_nearest_for_the_scale_that_is_stored() -> None:
    found = quantize(MATRIX, 4, np.float16)
    assert np.array_equal(found.scales, found.scales.astype(np.float16).astype(np.float32))


def test_only_whole_blocks_of_an_even_number_are_quantised() -> None:
    assert quantizable((7, 64))
    assert not quantizable((7, 32))
    assert not quantizable((7, 100))
    assert not quantizable((4, 64, 3, 3))


def graph(columns: int = 128, body: str = "y = com.microsoft.FusedMatMul <transB = 1> (x, w)") -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[batch, length, {columns}] x, float[24, {columns}] w) => (float[batch, length, n] y) {{ {body} }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    weight = model.graph.inputs.pop()
    model.graph.initializers["w"] = weight
    return model


def evaluated(part: str, bits: int, scale_type: str) -> np.ndarray:
    """A part of the quantised matrix, evaluated by rows as the stream does it."""
    tensor = StoredTensor(
        name="w", file="f", dtype="F32", shape=MATRIX.shape, offset=0, size_bytes=MATRIX.nbytes
    )
    maker = {"codes": QuantizedCodes, "scales": QuantizationScales, "zero_points": ZeroPoints}[part]
    expression = maker(of=Stored(tensor=tensor), bits=bits, scale_type=scale_type)

    def read(_: StoredTensor, first: int, count: int) -> np.ndarray:
        return MATRIX.reshape(-1)[first : first + count]

    step = expression.granule * 5
    pieces = [
        expression.evaluate(first, min(step, expression.size - first), read)
        for first in range(0, expression.size, step)
    ]
    return np.concatenate(pieces).reshape(expression.shape)


@BITS
def test_onnx_runtime_multiplies_by_what_the_parts_stand_for(bits: int) -> None:
    model = graph()
    assert quantize_weights(model, f"int{bits}", ()) == 1
    assert quantized_weights(model) == ["w"]
    for part in ("codes", "scales", "zero_points"):
        value = model.graph.initializers[f"w.{part}"]
        numbers = evaluated(part, bits, "F32")
        assert value.shape is not None
        assert tuple(value.shape.numpy()) == numbers.shape
        value.const_value = ir.tensor(numbers, name=value.name)
    feeds = {"x": np.random.default_rng(5).standard_normal((2, 9, 128)).astype(np.float32)}
    expected = feeds["x"] @ quantize(MATRIX, bits, np.float32).restored().T
    assert psnr(expected, run_on_cpu(model, feeds)[0]) > 100


@BITS
@pytest.mark.parametrize(("scale_type", "kind"), [("F16", np.float16), ("F32", np.float32)])
def test_parts_are_those_of_the_matrix_quantised_at_once(bits: int, scale_type: str, kind: type) -> None:
    whole = quantize(MATRIX, bits, kind)
    np.testing.assert_array_equal(evaluated("scales", bits, scale_type), whole.scales)
    codes = evaluated("codes", bits, scale_type)
    points = evaluated("zero_points", bits, scale_type)
    if bits == 4:
        codes, points = (
            np.stack([each & 15, each >> 4], -1).reshape(len(each), -1) for each in (codes, points)
        )
    np.testing.assert_array_equal(codes.reshape(whole.codes.shape), whole.codes)
    np.testing.assert_array_equal(points, whole.zero_points)
    stored = Stored(
        tensor=StoredTensor(name="w", file="f", dtype="F32", shape=MATRIX.shape, offset=0, size_bytes=1)
    )
    kinds = {QuantizedCodes: "U8", QuantizationScales: scale_type, ZeroPoints: "U8"}
    for maker, dtype in kinds.items():
        assert maker(of=stored, bits=bits, scale_type=scale_type).dtype == dtype


@pytest.mark.parametrize(
    ("columns", "body", "keep"),
    [
        (96, "y = com.microsoft.FusedMatMul <transB = 1> (x, w)", ()),
        (128, "c = Cast <to = 1> (w) y = com.microsoft.FusedMatMul <transB = 1> (x, c)", ()),
        (128, "y = com.microsoft.FusedMatMul <transB = 1> (x, w)", ("^w$",)),
    ],
)
def test_other_weights_stay(columns: int, body: str, keep: tuple[str, ...]) -> None:
    assert quantize_weights(graph(columns, body), "int4", keep) == 0


@pytest.mark.torch
def test_a_stored_matrix_is_bound_to_all_its_parts_and_written(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submodel = next(each for each in open_folder(tiny_checkpoint).submodels if each.name == "unet")
    save_file({"w": MATRIX}, tmp_path / "w.safetensors")
    stored = read_header(Folder(tmp_path), "w.safetensors")
    model = graph()
    quantize_weights(model, "int8", ())
    bound = bind("unet", [(submodel, model)], {"w": Stored(tensor=stored["w"])})
    assert {each.initializer: each.size_bytes for each in bound.bindings["unet"]} == {
        "w.codes": MATRIX.size,
        "w.scales": MATRIX.size // BLOCK * 4,
        "w.zero_points": MATRIX.size // BLOCK,
    }
    monkeypatch.setattr(stream, "_PIECE_BYTES", 1024)
    streamed = stream.stream(
        bound.bindings, Folder(tmp_path), {"unet": tmp_path / "data"}, tmp_path / "progress", lambda _: None
    )
    content = (tmp_path / "data").read_bytes()
    assert streamed.sha256["unet"] == hashlib.sha256(content).hexdigest()
    for each in bound.bindings["unet"]:
        part = each.initializer.removeprefix("w.")
        written = content[each.offset : each.offset + each.size_bytes]
        expected = evaluated(part, 8, "F16").astype(np.float32 if part == "scales" else np.uint8)
        assert written == expected.tobytes(), part
    with pytest.raises(ConversionError, match=r"lacks 1 tensor \(w\)"):
        bind("unet", [(submodel, model)], {"other": Stored(tensor=stored["w"])})


@pytest.fixture
def run(graph_cache: Path, tmp_path: Path) -> Callable[..., Converted]:
    def run(checkpoint: Path, **options: object) -> Converted:
        opened = open_folder(checkpoint)
        return convert(
            make_plan(opened, Options(**options), graph_cache),  # type: ignore[arg-type]
            opened,
            tmp_path / "package",
            tool_version="test",
            graph_cache=graph_cache,
            checks=Checks(device=CPU),
            listener=ignore,
        )

    return run


@pytest.mark.torch
@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("cpu", "int4"),
        pytest.param("directml", "int4", marks=pytest.mark.robustness),
        pytest.param("cuda", "int8", marks=pytest.mark.robustness),
    ],
)
def test_a_quantised_package_is_compared_with_pytorch_on_the_same_weights(
    tiny_checkpoint: Path, run: Callable[..., Converted], target: str, precision: str
) -> None:
    converted = run(tiny_checkpoint, target=target, precision=precision)
    assert converted.report is not None
    by_name = {each.submodel: each for each in converted.report.submodels}
    assert by_name["unet"].parity is not None
    assert by_name["unet"].parity.psnr_db >= 60
    assert by_name["unet"].quantization_db is not None
    assert 15 < by_name["unet"].quantization_db < 100
    assert by_name["vae_decoder"].quantization_db is None
    package = converted.package
    assert package.precision("unet") == precision
    assert package.precision("vae_decoder") == "fp16"
    kept = [name for name in package.quantized("unet") if "time_emb" in name]
    assert package.quantized("unet")
    assert not kept


@pytest.mark.robustness  # a conversion with its verification
@pytest.mark.torch
def test_one_submodel_alone_can_be_quantised(tiny_checkpoint: Path, run: Callable[..., Converted]) -> None:
    package = run(tiny_checkpoint, target="cpu", precisions={"unet": "int8", "vae_decoder": "fp32"}).package
    found = {name: package.precision(name) for name in package.submodel_names}
    assert found["text_encoder"] == "fp16"
    assert (found["unet"], found["vae_decoder"]) == ("int8", "fp32")

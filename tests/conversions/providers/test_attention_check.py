from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from conversions.providers import attention_check
from conversions.providers.attention_check import Attention, attentions_of, expand_wrong_attention, is_right
from conversions.providers.devices import CPU, listed_by_onnxruntime
from conversions.providers.onnx_session import open_session
from tests.conversions.graphs_for_tests import psnr, run_on_cpu

OpenModel = Callable[[bytes], Any]


def open_on_cpu(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def changed(model: bytes, change: Callable[[onnx.ModelProto], None]) -> Any:
    """Open the model as a kernel would compute it that ignores something."""
    proto = onnx.load_from_string(model)
    change(proto)
    return open_on_cpu(proto.SerializeToString())


def half_the_scale(model: bytes) -> Any:
    """Open the model as a kernel would compute it that takes the head size for four times what it is."""
    scale = onnx.helper.make_attribute("scale", 0.5 / 40**0.5)
    return changed(model, lambda proto: proto.graph.node[0].attribute.append(scale))


def right_in_short_prompts_alone(model: bytes) -> Any:
    biased = len(onnx.load_from_string(model).graph.input) == 4
    return open_on_cpu(model) if biased else half_the_scale(model)


def fails(model: bytes) -> Any:
    raise RuntimeError("no kernel")


@pytest.fixture(autouse=True)
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_check, "_answers", {})


def graph(*, bias: bool = False, dtype: str = "float") -> ir.Model:
    biased = f", {dtype}[1, 1, length, length] bias" if bias else ""
    return ir.from_proto(
        onnx.parser.parse_model(
            f"""
            <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
            g ({dtype}[1, length, 80] x{biased}) => ({dtype}[1, length, 80] y)
            {{
                y = com.microsoft.MultiHeadAttention <num_heads = 2>
                    (x, x, x{", , , bias" if bias else ""})
            }}
            """
        )
    )


def test_forms_are_read_off_the_graph() -> None:
    plain = Attention(heads=2, head_size=40, dtype="float32", biased=False)
    assert attentions_of(graph()) == {plain}
    assert attentions_of(graph(bias=True, dtype="float16")) == {
        Attention(heads=2, head_size=40, dtype="float16", biased=True)
    }


@pytest.mark.parametrize(
    "operator", ["(x, x, x)", "<num_heads = 2> (x, x, x, , mask)", "<num_heads = 2> (x, x, x, , , , x)"]
)
def test_a_form_needs_its_heads_and_has_no_bias_unless_it_is_given(operator: str) -> None:
    model = ir.from_proto(
        onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
        g (float[1, length, 80] x, int32[1, length] mask) => (float[1, length, 80] y)
        {{ y = com.microsoft.MultiHeadAttention {operator} }}
        """)
    )
    plain = Attention(heads=2, head_size=40, dtype="float32", biased=False)
    assert attentions_of(model) == ({plain} if "num_heads" in operator else set())


def ignores_the_scale(model: bytes) -> Any:
    def drop(proto: onnx.ModelProto) -> None:
        kept = [each for each in proto.graph.node[0].attribute if each.name != "scale"]
        del proto.graph.node[0].attribute[:]
        proto.graph.node[0].attribute.extend(kept)

    return changed(model, drop)


def takes_the_first_bias_for_all(model: bytes) -> Any:
    def slice_bias(proto: onnx.ModelProto) -> None:
        attention = proto.graph.node[0]
        attention.input[5] = "first"
        for name, end in (("zero", 0), ("one", 1)):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([end]), name))
        proto.graph.node.insert(0, onnx.helper.make_node("Slice", ["bias", "zero", "one", "zero"], ["first"]))

    return changed(model, slice_bias)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_scale_and_each_row_s_bias_are_looked_at(dtype: str) -> None:
    scaled = Attention(heads=2, head_size=40, dtype=dtype, biased=True, scale=1.0)
    assert is_right(scaled, open_on_cpu)
    assert not is_right(scaled, ignores_the_scale)
    assert not is_right(scaled, takes_the_first_bias_for_all)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_right_kernel_is_right_and_a_wrong_one_wrong(dtype: str, biased: bool) -> None:
    attention = Attention(heads=2, head_size=40, dtype=dtype, biased=biased)
    assert is_right(attention, open_on_cpu)
    assert not is_right(attention, half_the_scale)
    assert not is_right(attention, fails)


def test_a_right_device_keeps_the_operator_and_a_wrong_one_gets_it_written_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    feeds = {"x": np.random.default_rng(4).normal(0, 1, (1, 9, 80)).astype(np.float32)}
    kept, written_out = graph(), graph()
    expand_wrong_attention(kept, device=CPU, open_model=open_on_cpu)
    assert [node.op_type for node in kept.graph] == ["MultiHeadAttention"]

    attention_check._answers.clear()
    with caplog.at_level(logging.WARNING):
        expand_wrong_attention(written_out, device=CPU, open_model=half_the_scale)
    assert "MultiHeadAttention" not in {node.op_type for node in written_out.graph}
    assert "CPU (CPU 0) does not compute MultiHeadAttention right (2 heads of 40, float32)" in caplog.text
    assert psnr(run_on_cpu(kept, feeds)[0], run_on_cpu(written_out, feeds)[0]) > 120


def test_each_form_is_tried_once_and_by_itself() -> None:
    tried: list[bytes] = []

    def counting(model: bytes) -> Any:
        tried.append(model)
        return right_in_short_prompts_alone(model)

    prompt, image = graph(bias=True), graph()
    for model in (prompt, graph(bias=True), image, graph()):
        expand_wrong_attention(model, device=CPU, open_model=counting)
    assert [node.op_type for node in prompt.graph] == ["MultiHeadAttention"]
    assert "MultiHeadAttention" not in {node.op_type for node in image.graph}
    assert len(tried) == 2


def test_a_session_tries_every_form_on_its_own_device(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubtful = replace(CPU, provider=replace(CPU.provider, checks_attention=True))
    listed = [
        place for place, each in enumerate(listed_by_onnxruntime()) if each.ep_name == CPU.provider.name
    ]
    paths = {tmp_path / "prompt.onnx": graph(bias=True), tmp_path / "image.onnx": graph()}
    for path, model in paths.items():
        ir.save(model, path)
        with caplog.at_level(logging.WARNING):
            open_session(path, replace(doubtful, listed=listed[0]), {})
    assert attention_check._answers == {
        (str(doubtful), Attention(heads=2, head_size=40, dtype="float32", biased=biased)): True
        for biased in (False, True)
    }
    assert not caplog.text

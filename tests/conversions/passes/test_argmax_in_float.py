from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.argmax_in_float import argmax_in_float
from tests.conversions.graphs_for_tests import run_on_cpu


def last_token(kind: str) -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18]>
    g ({kind}[batch, sequence] ids) => (int64[batch, 1] place)
    {{ same = Identity(ids) place = ArgMax <axis = 1> (same) }}
    """
    return ir.from_proto(onnx.parser.parse_model(text))


@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_the_highest_token_id_is_found_where_float16_could_not_tell_it_from_its_neighbour(kind: str) -> None:
    ids = np.array([[49406, 320, 49407, 49407], [49406, 49407, 49407, 49407]], kind)
    model = last_token(kind)

    assert argmax_in_float(model) == 1
    searched = next(node for node in model.graph if node.op_type == "ArgMax").inputs[0]
    assert searched is not None
    producer = searched.producer()
    assert producer is not None
    assert producer.op_type == "Cast"
    np.testing.assert_array_equal(run_on_cpu(model, {"ids": ids})[0], [[2], [1]])


def test_floats_are_left_alone() -> None:
    model = last_token("float16")
    before = [node.op_type for node in model.graph]

    assert argmax_in_float(model) == 0
    assert [node.op_type for node in model.graph] == before

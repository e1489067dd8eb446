import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdsetup.machine.facts import Questions
from sdsetup.machine.readers import runtime, trial


def _graph() -> onnx.ModelProto:
    weight = np.linspace(-2, 2, 35, dtype=np.float16).reshape(5, 7)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        "trial",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [3, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [3, 7])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="sdsetup")


def test_the_shipped_graph_is_the_one_described() -> None:
    assert trial.GRAPH.read_bytes() == _graph().SerializeToString(deterministic=True)


def test_the_cpu_runs_it_with_the_right_numbers(tmp_path) -> None:
    seen = runtime.read(Questions(output=tmp_path))
    assert seen.version
    cpu = next(each for each in seen.trials if each.provider == "CPUExecutionProvider")
    assert cpu.error == ""
    assert cpu.largest_error < 0.01


def test_a_provider_that_is_not_here_is_no_success() -> None:
    answer = runtime._start("CUDAExecutionProvider", "0")
    assert answer["error"]

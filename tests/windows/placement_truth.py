"""Asks DirectML where it places the nodes of small graphs: ``python -m tests.windows.placement_truth FROM
TO``.

Runs under Windows Python. Writes one JSON object a line to stdout. A process makes few sessions: the
Direct3D under Wine does not stand many.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SESSIONS_PER_PROCESS = 16


def ask(numbers: list[int]) -> list[dict[str, Any]]:
    """Ask about some of the cases, a few in each process; answers come in the order of ``numbers``."""
    answers: list[dict[str, Any]] = []
    while len(answers) < len(numbers):
        some = numbers[len(answers) : len(answers) + SESSIONS_PER_PROCESS]
        command = [sys.executable, "-m", "tests.windows.placement_truth", *map(str, some)]
        done = subprocess.run(command, capture_output=True, timeout=300, check=False)
        lines = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.startswith("{")]
        answers += [json.loads(line) for line in lines]
        if len(lines) < len(some):
            # The case after the last answer took the process with it.
            broken = numbers[len(answers)]
            error = f"crashed: {done.returncode}"
            answers.append({"case": broken, "places": {}, "partitions": 0, "error": error})
    return answers


def _ask_directml(number: int) -> dict[str, Any]:
    import onnxruntime

    from tests.windows.placement_models import cases

    case = cases()[number]
    proto = case.model()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(tempfile.gettempdir()) / "placement")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for name, size in case.sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    directml = ("DmlExecutionProvider", {"device_id": "0"})
    answer: dict[str, Any] = {"case": number, "name": case.name, "places": {}, "partitions": 0, "error": ""}
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=[directml, "CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
        return answer | {"error": str(error)[-300:]}
    if session.get_providers()[0] != "DmlExecutionProvider":
        return answer | {"error": "no DirectML session"}
    device = {
        node.name
        for graph in session.get_provider_graph_assignment_info()
        if graph.ep_name == "DmlExecutionProvider"
        for node in graph.get_nodes()
    }
    try:
        session.run(None, {value.name: _feed(value) for value in session.get_inputs()})
    except Exception as error:  # noqa: BLE001
        answer["error"] = f"run: {str(error)[-300:]}"
    ran = _ran(Path(session.end_profiling()))
    for node in proto.graph.node:
        answer["places"][node.name] = _place(node.name, device, ran)
    answer["extra"] = sorted(device - {node.name for node in proto.graph.node})
    answer["partitions"] = sum(name.startswith("DmlFusedNode") for name in ran)
    return answer


def _ran(profile: Path) -> dict[str, str]:
    """Nodes that ran as steps of their own, with their provider."""
    events = json.loads(profile.read_text(encoding="utf-8"))
    profile.unlink()
    suffix = "_kernel_time"
    return {
        event["name"].removesuffix(suffix): event["args"].get("provider", "")
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(suffix)
    }


def _place(name: str, device: set[str], ran: dict[str, str]) -> str:
    if name in ran:
        return "alone" if ran[name] == "DmlExecutionProvider" else "cpu"
    return "fused" if name in device else "gone"


def _feed(value: Any) -> Any:
    import numpy as np
    import onnxruntime

    shape = [
        size if isinstance(size, int) else {"batch": 1, "height": 5, "width": 7, "n": 3}[size]
        for size in value.shape
    ]
    if value.name == "s" and value.type == "tensor(int64)":
        return np.array([3, 35], np.int64)
    random = np.random.default_rng(1).uniform(0.5, 2.0, shape)
    names = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    if value.type in names:
        return random.astype(names[value.type])
    if value.type == "tensor(bfloat16)":
        bits = (random.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, 16)
    element = np.bool_ if value.type == "tensor(bool)" else value.type[7:-1]
    return np.full(shape, value.name != "i", element)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        sys.stdout.write(json.dumps(_ask_directml(int(argument))) + "\n")
        sys.stdout.flush()

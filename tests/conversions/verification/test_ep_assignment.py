"""Which provider ran which nodes: from ONNX Runtime's record and profile, and in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from conversions.verification.ep_assignment import (
    Placement,
    add_profile,
    describe_shares,
    read_placement,
    share_of_time,
)

GPU, CPU = "DmlExecutionProvider", "CPUExecutionProvider"


def placement(gpu: int, cpu: int, seconds: dict[str, float] | None = None) -> Placement:
    nodes = {name: count for name, count in ((GPU, gpu), (CPU, cpu)) if count}
    return Placement(provider=GPU, nodes=nodes, seconds=seconds or {})


def session(folder: Path) -> onnxruntime.InferenceSession:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[n] x) => (float[n] y) { a = Sin(x) b = Cos(a) c = Sin(b) y = Add(a, c) }
    """)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])


def test_the_nodes_of_a_session_are_counted_by_provider(tmp_path: Path) -> None:
    made = session(tmp_path)
    on_cpu = read_placement(made, CPU)
    assert (on_cpu.provider, on_cpu.nodes, on_cpu.elsewhere) == (CPU, {CPU: 4}, {})
    assert (on_cpu.node_share, on_cpu.time_share) == (1.0, 1.0)
    missed = read_placement(made, GPU)
    assert (missed.nodes, missed.elsewhere) == ({CPU: 4}, {"Sin": 2, "Cos": 1, "Add": 1})
    assert (missed.node_share, missed.time_share) == (0.0, None)


def test_a_session_s_profile_adds_its_times_and_is_deleted(tmp_path: Path) -> None:
    made = session(tmp_path)
    made.run(None, {"x": np.ones(1000, np.float32)})
    measured = add_profile(read_placement(made, GPU), made)
    assert measured.nodes == {CPU: 4}
    assert measured.elsewhere == {"Sin": 2, "Cos": 1, "Add": 1}
    assert set(measured.seconds) == {CPU}
    assert 0 < measured.seconds[CPU] < 10
    assert measured.time_share == 0.0
    assert not list(tmp_path.iterdir())


def kernel(
    event: str, provider: str, microseconds: int, operator: str = "", **changes: Any
) -> dict[str, Any]:
    arguments = {"provider": provider, **({"op_name": operator} if operator else {})}
    usual = {"cat": "Node", "name": f"{event}_kernel_time", "dur": microseconds, "args": arguments}
    return {**usual, **changes}


def test_a_profile_counts_the_kernels_that_ran(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    events = [
        kernel("fused", GPU, 3_000_000),
        kernel("gather", CPU, 500_000, "Gather"),
        kernel("gather", CPU, 250_000, "Gather"),
        kernel("shape", CPU, 250_000, "Shape"),
        kernel("other", CPU, 0),
        kernel("fence", CPU, 9_000_000, "Shape", name="fence_fence_before"),
        kernel("model", CPU, 9_000_000, "Shape", cat="Session"),
        kernel("nobody", "", 9_000_000, "Shape"),
        {"cat": "Node", "name": "bare_kernel_time", "dur": 9_000_000},
    ]
    path.write_text(json.dumps(events), "utf-8")
    before = Placement(provider=GPU, nodes={GPU: 40, CPU: 2}, elsewhere={"Shape": 2, "Loop": 1})
    after = before.measured(path)
    assert after.provider == GPU
    assert after.nodes == {GPU: 40, CPU: 3}
    assert after.elsewhere == {"Shape": 2, "Loop": 1, "Gather": 1, "unknown": 1}
    assert after.seconds == pytest.approx({GPU: 3.0, CPU: 1.0})
    assert after.time_share == pytest.approx(0.75)
    assert before.seconds == {}


def test_shares_of_nodes() -> None:
    assert placement(3, 1).node_share == 0.75
    assert placement(0, 1).node_share == 0.0
    assert placement(0, 0).node_share == 0.0


def test_shares_of_time_are_known_where_something_was_measured_or_all_is_in_one_place() -> None:
    assert placement(3, 1).time_share is None
    assert placement(3, 0).time_share == 1.0
    assert placement(3, 1, {GPU: 1.0, CPU: 3.0}).time_share == 0.25
    assert placement(3, 1, {CPU: 3.0}).time_share == 0.0
    half = placement(3, 1, {GPU: 0.5, CPU: 0.5})
    assert share_of_time([(half, 1.0), (placement(3, 0), 3.0)]) == pytest.approx(0.875)
    assert share_of_time([(half, 1.0), (placement(3, 1), 3.0)]) is None
    assert share_of_time([]) is None
    assert share_of_time([(half, 0.0)]) is None


def test_shares_in_words() -> None:
    given = [placement(1199, 1), placement(0, 4)]
    assert describe_shares(given, 0.9994) == "99.6% of 1,204 nodes, 99.9% of the time"
    assert describe_shares(iter(given), None) == "99.6% of 1,204 nodes"
    assert describe_shares([], 0.0) == "0.0% of 0 nodes, 0.0% of the time"

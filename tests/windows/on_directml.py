"""Sessions that are on DirectML or fail: the judge of DirectML promises; nothing of the project is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIRECTML = "DmlExecutionProvider"


class NotOnDirectMLError(AssertionError):
    """Something that should run on DirectML runs elsewhere."""


def open_session(graph: Path | bytes, folder: Path, sizes: Mapping[str, int] | None = None) -> Any:
    """Open a graph on adapter 0, wholly, or raise.

    ONNX Runtime answers most troubles with DirectML by using the CPU and going on: without a device number
    under Wine, with one that does not exist, in a build without DirectML, for nodes that have no kernel.

    Args:
        graph: The model, or where it is.
        folder: For the profile that ``run`` reads.
        sizes: Free dimensions by name, to be fixed.

    Raises:
        NotOnDirectMLError: The session, or a node of it, would be on the CPU.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    # ONNX Runtime's record of assignments leaves out nodes that go to the CPU for want of a kernel.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for name, size in (sizes or {}).items():
        options.add_free_dimension_override_by_name(name, size)
    if DIRECTML not in onnxruntime.get_available_providers():
        raise NotOnDirectMLError(f"this ONNX Runtime has only {onnxruntime.get_available_providers()}")
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[(DIRECTML, {"device_id": "0"})])
    except Exception as error:
        if "assigned to the default CPU EP" in str(error):
            raise NotOnDirectMLError(str(error)) from error
        raise
    check_provider(session)
    return session


def check_provider(session: Any) -> None:
    """Raise NotOnDirectMLError when ONNX Runtime has quietly taken another provider."""
    if session.get_providers()[0] != DIRECTML:
        raise NotOnDirectMLError(f"the session is on {session.get_providers()[0]}")


def run(session: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run a session of ``open_session`` once, and see where its kernels ran.

    Returns:
        The outputs by name.

    Raises:
        NotOnDirectMLError: A kernel ran elsewhere.
    """
    return run_and_name_kernels(session, inputs)[0]


def run_and_name_kernels(session: Any, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Run a session as ``run`` does; also return the names of the kernels, in the order of their running.

    A fused graph is one kernel, whose name begins with ``DmlFusedNode``.
    """
    names = [output.name for output in session.get_outputs()]
    results = session.run(names, dict(inputs))
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = {
        event["name"].removesuffix("_kernel_time"): event["args"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    elsewhere = sorted({each["op_name"] for each in kernels.values() if each["provider"] != DIRECTML})
    if elsewhere or not kernels:
        raise NotOnDirectMLError(f"ran on the CPU: {', '.join(elsewhere) or 'everything'}")
    return dict(zip(names, results, strict=True)), list(kernels)

"""The order in which a session on the CPU runs its nodes, which decides how much memory weights take."""

from __future__ import annotations

from typing import Any


def widen_late(options: Any) -> None:
    """Let a session on the CPU widen each float16 weight when it is wanted, and hold few at once.

    By default nodes run in an order in which Casts of weights come first: SD 1.4's safety checker took
    1.6 GiB instead of 0.7. Here a node runs when its inputs are there, the one that was made first before
    others: those of the graph in its order, then those that optimisation makes. So a Cast in the graph should
    stand before its first reader, and the reader should not be one that optimisation fuses.

    Source: ONNX Runtime, core/graph/graph_viewer.cc, ``PriorityNodeCompare``.

    Args:
        options: The ``onnxruntime.SessionOptions``.
    """
    import onnxruntime

    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    # What is planned once for all runs raises the peak.
    options.enable_mem_pattern = False

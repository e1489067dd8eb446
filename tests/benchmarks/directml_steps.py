"""A denoiser's step on DirectML in several forms of its graph, in one run: what a pass or a part costs.

Run as ``python -m tests.benchmarks.directml_steps PACKAGE [--side 512] [--images 1] [--runs 10] [FORM...]``
by a Windows Python, on a real card (also under Wine: see tests/windows/card). Without FORM all are timed:

- ``as shipped``: what a session gets;
- ``products in stacks``: without fused_matmul_to_gemm;
- ``whole attention``: without slice_attention;
- ``no self-attention``, ``no norms``, ``no gelu``: without that part, which tells what it costs. The numbers
  are wrong then.

Prints a line for each: median of a step in ms, its first run, seconds to open the session, and PSNR in dB
against the first form.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from conversions.package.layout import open_package
from conversions.passes.slice_attention import slice_attention
from conversions.pipeline_graphs import package_graphs
from conversions.providers.session_graph import Edit, session_graph
from conversions.providers.table import Provider, provider_for
from conversions.recipe import ImageSize
from conversions.shape_inference import fix_sizes, static_shape
from conversions.verification.metrics import compare
from conversions.verification.reference import make_inputs
from tests.windows.on_directml import check_provider

DIRECTML = provider_for("directml")
GEMM = "fused_matmul_to_gemm"


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a session's graph is made.

    Attributes:
        passes: Passes of DirectML's row that are kept.
        sliced: Whether attention is sliced.
        without: Leaves a part of the graph out.
    """

    passes: tuple[str, ...] = DIRECTML.at_load
    sliced: bool = True
    without: Edit | None = None


def _leave_out(model: ir.Model, *operators: str, only: frozenset[str] | None = None) -> None:
    """Take nodes out whose result is as large as their first input."""
    for node in list(model.graph):
        if node.op_type in operators and node.inputs[0] is not None and (only is None or node.name in only):
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0], replace_graph_outputs=True)
            model.graph.remove(node, safe=True)


def _without_self_attention(model: ir.Model, sizes: dict[str, int]) -> None:
    of_itself = frozenset(
        str(node.name)
        for node in fix_sizes(model, sizes).graph
        if node.op_type == "MultiHeadAttention" and _length(node.inputs[0]) == _length(node.inputs[1])
    )
    _leave_out(model, "MultiHeadAttention", only=of_itself)


def _length(value: ir.Value | None) -> int | None:
    shape = static_shape(value) if value is not None else None
    return shape[1] if shape is not None else None


def forms(sizes: dict[str, int]) -> dict[str, Form]:
    """Return the forms by name, for a denoiser's sizes."""
    return {
        "as shipped": Form(),
        "products in stacks": Form(passes=tuple(name for name in DIRECTML.at_load if name != GEMM)),
        "whole attention": Form(sliced=False),
        "no self-attention": Form(without=partial(_without_self_attention, sizes=sizes)),
        "no norms": Form(without=lambda model: _leave_out(model, "GroupNorm", "LayerNormalization")),
        "no gelu": Form(without=lambda model: _leave_out(model, "Gelu")),
    }


def time_form(
    graph: Path, form: Form, sizes: dict[str, int], inputs: dict[str, Any], runs: int
) -> tuple[np.ndarray[Any, Any], str]:
    """Open a session for a form and run it; returns the output and a line of figures."""
    import onnxruntime

    row: Provider = replace(DIRECTML, at_load=form.passes)
    edits: list[Edit] = [partial(slice_attention, sizes=sizes)] if form.sliced else []
    if form.without is not None:
        edits.insert(0, form.without)
    made = session_graph(graph, row, edits)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    for key, value in made.config.items():
        options.add_session_config_entry(key, value)
    began = time.perf_counter()
    session = onnxruntime.InferenceSession(
        made.model, options, providers=[(DIRECTML.name, {"device_id": "0"})]
    )
    opened = time.perf_counter() - began
    check_provider(session)
    halves = {each.name for each in session.get_inputs() if each.type == "tensor(float16)"}
    feeds = {name: value.astype(np.float16) if name in halves else value for name, value in inputs.items()}
    times = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        output = session.run(None, feeds)[0]
        times.append((time.perf_counter() - began) * 1000)
    line = f"{statistics.median(times[1:]):7.1f} ms, first {times[0]:6.0f} ms, opened in {opened:4.1f} s"
    return output.astype(np.float64), line


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the forms that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.directml_steps", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("forms", nargs="*")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args(arguments)
    package = open_package(options.package)
    (denoiser,) = package.with_role("denoiser")
    kind = next(each.kind for each in package.submodels if each.name == denoiser)
    size = ImageSize(width=options.side, height=options.side, images=options.images)
    sizes = dict(package_graphs(package).sizes(denoiser, size))
    inputs = dict(make_inputs(kind, package.config(denoiser), sizes))
    known = forms(sizes)
    first = None
    for name in options.forms or known:
        output, line = time_form(package.graph(denoiser), known[name], sizes, inputs, options.runs)
        first = output if first is None else first
        print(f"{name:20s} {line}, {compare(output, first).psnr_db:5.1f} dB", flush=True)


if __name__ == "__main__":
    main()

"""Where DirectML runs the published architectures, told from the shipped graphs at their true configurations.

Run as ``python -m tests.benchmarks.placement_of_real_models``. Writes one JSON object a submodel and image
size: nodes, operators, fused graphs, nodes outside, forecast of memory, seconds.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from typing import Any

import onnx_ir as ir

from conversions.conversion import adapt
from conversions.forecast import forecast
from conversions.graphs import find
from conversions.graphs.architectures import SHIPPED
from conversions.options import Options
from conversions.providers.ep_partition import check_placement, image_sizes

SIDES = (512, 768, 1024)


def main() -> None:
    """Write one line for every model and size."""
    for family, submodel, config in SHIPPED:
        model = find(submodel, config, None)
        assert model is not None
        adapt(model, submodel, config, Options(precision="fp16", target="directml"))
        for side in SIDES:
            print(json.dumps(_check(family, submodel.name, model, side)))
            sys.stdout.flush()


def _check(family: str, submodel: str, model: ir.Model, side: int) -> dict[str, Any]:
    sizes = image_sizes(model, width=side, height=side)
    began = time.perf_counter()
    report = check_placement(model, "directml", sizes, submodel=submodel)
    seconds = time.perf_counter() - began
    (need,) = forecast({submodel: model}, width=side, height=side).needs
    return {
        "family": family,
        "side": side,
        "stored_nodes": len(model.graph),
        **report.as_dict(),
        "operators": dict(Counter(node.operator for node in report.nodes).most_common()),
        "weights_bytes": need.weights_bytes,
        "activation_bytes": need.activation_bytes,
        "check_seconds": round(seconds, 2),
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
    }


if __name__ == "__main__":
    main()

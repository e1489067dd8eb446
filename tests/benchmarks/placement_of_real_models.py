"""Where DirectML runs the published architectures, told from the shipped graphs at their true configurations.

Run as ``python -m tests.benchmarks.placement_of_real_models``. Writes one JSON object a submodel and image
size: nodes, operators, fused graphs, nodes outside, forecast of memory, seconds. Ends with status 1 where a
submodel is not one fused graph.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from typing import Any

from conversions.family import Family, ShippedGraph
from conversions.forecast import peak_activation_bytes
from conversions.graphs import find
from conversions.options import Options
from conversions.passes.adapt import adapt
from conversions.providers.ep_partition import check_placement
from conversions.shape_inference import fix_sizes
from tests.shipped import SHIPPED, sizes_of, submodel_of

SIDES = (512, 768, 1024)


def main() -> int:
    """Write one line for every model and size; returns the exit status."""
    whole = True
    for family, shipped in SHIPPED:
        for side in SIDES:
            found = _check(family, shipped, side)
            whole = whole and found["whole"]
            print(json.dumps(found))
            sys.stdout.flush()
    return 0 if whole else 1


def _check(family: Family, shipped: ShippedGraph, side: int) -> dict[str, Any]:
    submodel, sizes = submodel_of(family, shipped), sizes_of(family, shipped, side)
    model = find(shipped.kind, shipped.config, None)
    assert model is not None
    adapt(model, submodel, shipped.config, Options(precision="fp16", target="directml"), sizes)
    began = time.perf_counter()
    report = check_placement(model, "directml", sizes, submodel=submodel.name)
    seconds = time.perf_counter() - began
    return {
        "model": shipped.label,
        "side": side,
        "stored_nodes": len(model.graph),
        **report.as_dict(),
        "operators": dict(Counter(node.operator for node in report.nodes).most_common()),
        "activation_bytes": peak_activation_bytes(fix_sizes(model, sizes)),
        "check_seconds": round(seconds, 2),
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
    }


if __name__ == "__main__":
    sys.exit(main())

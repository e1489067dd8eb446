"""What ``sdsetup.probes.plan`` starts: plans one conversion and writes its needs as one line of JSON.

Run as ``python -m sdsetup.probes.planning MODEL``. The plan is that of ``sdsetup convert MODEL --dry-run``.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def needs(model: str) -> dict[str, Any]:
    """Plan and forecast; gives the fields of ``sdsetup.environment.Plan`` that are not its defaults."""
    try:
        from conversions.errors import ConversionError
        from conversions.events import ignore
        from conversions.options import Options
        from sdsetup import workflow
        from sdsetup.checkpoint_source import Wish
        from sdsetup.errors import SetupError
    except ImportError as error:
        return {"error": f"planning needs what `sdsetup install` brings: {error}", "code": "plan.packages"}
    options = Options(target=workflow.default_target())
    request = workflow.ConvertRequest(wish=Wish(model=model), options=options)
    try:
        source, plan = workflow.plan_conversion(request, ignore)
        with source.using:
            memory = workflow.forecast_conversion(source, options)
    except (SetupError, ConversionError) as error:
        return {"error": error.message, "code": error.code, "hint": error.hint}
    found: dict[str, Any] = {
        "download_bytes": source.download.download_bytes if source.download is not None else 0,
        "package_bytes": plan.package_bytes,
        "ram_bytes": max(plan.ram_bytes, plan.check_ram_bytes),
    }
    if memory is not None:
        found |= {
            "vram_bytes": memory.forecast.device_bytes,
            "vram_least_bytes": memory.forecast.staged_bytes,
            "side": memory.forecast.width,
            "largest_side": memory.largest_side,
        }
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(needs(sys.argv[1])) + "\n")

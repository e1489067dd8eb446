"""Compute what one model needs and print it as one line of JSON; started by ``model_needs``.

Run as ``python -m sdsetup.machine.readers.model_needs_worker convert|generate MODEL``. A conversion's plan
is that of ``sdsetup convert MODEL --dry-run``; what images need is told by the graphs of the package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversions.errors import ConversionError
from sdsetup.error_hints import hint_for
from sdsetup.errors import SetupError

if TYPE_CHECKING:
    from sdsetup.imaging.image_memory import ImageMemory


def needs(use: str, model: str) -> dict[str, Any]:
    """Give the fields of ``sdsetup.environment.Plan`` that are not its defaults."""
    try:
        return _of_conversion(model) if use == "convert" else _of_images(Path(model).expanduser())
    except ImportError as error:
        return {"error": f"planning needs what `sdsetup install` brings: {error}", "code": "plan.packages"}
    except (SetupError, ConversionError) as error:
        hint = hint_for(error) if isinstance(error, ConversionError) else error.hint
        return {"error": error.message, "code": error.code, "hint": hint}


def _of_conversion(model: str) -> dict[str, Any]:
    from conversions.events import ignore
    from conversions.graphs.obtain import demand_tracing
    from conversions.options import Options
    from sdsetup import workflow
    from sdsetup.checkpoint_source import CheckpointRequest

    options = Options(target=workflow.default_target())
    request = workflow.ConvertRequest(checkpoint_request=CheckpointRequest(model=model), options=options)
    planned = workflow.plan_conversion(request, ignore)
    source, plan = planned.source, planned.plan
    demand_tracing(plan.to_trace)
    with source.using:
        memory = workflow.forecast_conversion(planned)
    drawing = memory.forecast.staged_cpu_bytes if memory is not None and options.target == "cpu" else 0
    found: dict[str, Any] = {
        "download_bytes": source.download.download_bytes if source.download is not None else 0,
        "package_bytes": source.bytes_to_write(workflow.package_folder(model, options), plan),
        "ram_bytes": max(plan.ram_bytes, plan.check_ram_bytes, drawing),
    }
    return found if memory is None else found | _on_card(memory)


def _of_images(folder: Path) -> dict[str, Any]:
    from conversions.pipeline_graphs import package_graphs
    from sdsetup.imaging.image_memory import image_memory
    from sdsetup.runtime.devices import choose_device, list_devices
    from sdsetup.runtime.package import open_for_images

    package = open_for_images(folder)
    provider = choose_device(list_devices()).provider
    memory = image_memory(package_graphs(package).run_by(provider), package.recipe.native)
    needed = memory.forecast
    main_memory = {"ram_bytes": needed.host_bytes}
    if provider.target == "cpu":
        main_memory = {"ram_bytes": needed.cpu_bytes, "ram_least_bytes": needed.staged_cpu_bytes}
    return main_memory | _on_card(memory)


def _on_card(memory: ImageMemory) -> dict[str, Any]:
    return {
        "vram_bytes": memory.forecast.device_bytes,
        "vram_least_bytes": memory.forecast.staged_bytes,
        "side": memory.forecast.width,
        "largest_side": memory.largest_side,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(needs(sys.argv[1], sys.argv[2])) + "\n")

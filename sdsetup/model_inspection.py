"""Tell what a model is, a checkpoint or a package, and what converting it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversions.events import Listener
from conversions.options import Options
from sdsetup.checkpoint_source import CheckpointRequest
from sdsetup.workflow import ConvertRequest, default_target, plan_conversion

if TYPE_CHECKING:
    from conversions.inspection import Inspection


@dataclass(frozen=True, kw_only=True)
class InspectedModel:
    """What a model is, and what converting it needs.

    Attributes:
        inspection: Family, submodels, sizes and the like.
        conversion: The plan of its conversion as plain values; None for a package.
    """

    inspection: Inspection
    conversion: dict[str, Any] | None


def inspect_model(request: CheckpointRequest, listener: Listener) -> InspectedModel:
    """Tell what a checkpoint or a package is; of a model on the Hub, only small parts are read.

    Raises:
        SetupError: The model cannot be found or read.
        ConversionError: It is neither a checkpoint of a known family nor a package.
    """
    from conversions.graphs.obtain import lacking_for_tracing
    from conversions.inspection import inspect_checkpoint, inspect_package
    from conversions.package.layout import MANIFEST, open_package

    if (Path(request.model) / MANIFEST).is_file():
        return InspectedModel(inspection=inspect_package(open_package(Path(request.model))), conversion=None)
    options = Options(target=default_target())
    planned = plan_conversion(ConvertRequest(checkpoint_request=request, options=options), listener)
    plan, source = planned.plan, planned.source
    with source.using:
        inspection = inspect_checkpoint(source.checkpoint)
    needs = {
        "precision": options.precision,
        "target": options.target,
        "package_bytes": plan.package_bytes,
        "copied_bytes": plan.copied_bytes,
        "ram_bytes": plan.ram_bytes,
        "check_ram_bytes": plan.check_ram_bytes,
        "to_trace": list(plan.to_trace),
        "not_installed": list(lacking_for_tracing()) if plan.to_trace else [],
    }
    return InspectedModel(inspection=inspection, conversion=needs)

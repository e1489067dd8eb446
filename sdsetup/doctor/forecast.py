"""What a named model needs: by the plan of its conversion, or a package's files; else what its kind needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sdsetup.doctor.purpose import Kind, Purpose, purpose
from sdsetup.environment import Environment
from sdsetup.errors import UsageError

_GIB = 1024**3
# Beside the weights, 512 x 512 pictures keep about this much of activations.
_ACTIVATION_BYTES = 2 * _GIB


def purpose_for(kind: Kind, model: str) -> Purpose:
    """Say what a use of a model needs.

    Args:
        kind: The use.
        model: A Hub repository, a folder, or empty.

    Raises:
        UsageError: The model is neither a folder that exists nor a repository's name.
    """
    usual = replace(purpose(kind), model=model)
    folder = Path(model).expanduser()
    if not model or model == "demo":
        return usual
    if not folder.is_dir():
        if model.count("/") == 1 and not model.startswith((".", "~", "/")) and "\\" not in model:
            return usual
        raise UsageError(
            "doctor.model", f"There is no folder {model}.", "name a folder, or OWNER/NAME on the Hub."
        )
    return _of_package(usual, folder) if kind == "generate" else usual


def with_plan(wanted: Purpose, environment: Environment) -> Purpose:
    """Replace what conversions usually need by what the plan of this one says.

    Args:
        wanted: A purpose; only a conversion of a named model is changed.
        environment: The plan, or why there is none.
    """
    if wanted.kind != "convert" or not wanted.model:
        return wanted
    plan = environment.plan
    if plan is None or plan.error:
        reason = plan.error if plan is not None else environment.unknown.get("plan", "it was not planned")
        return replace(wanted, unknown=reason)
    return replace(
        wanted,
        cache_bytes=plan.download_bytes,
        output_bytes=plan.package_bytes,
        ram_bytes=plan.ram_bytes,
        vram_bytes=plan.vram_bytes or 0,
        vram_least_bytes=plan.vram_least_bytes or 0,
        basis=f"{wanted.model}, as its plan reckons",
    )


def _of_package(usual: Purpose, folder: Path) -> Purpose:
    weights = sum(file.stat().st_size for file in folder.glob("*/model.onnx*"))
    if not weights:
        return usual
    needed = weights + _ACTIVATION_BYTES
    return replace(
        usual, ram_bytes=needed, vram_bytes=needed, basis=f"the weights of {folder.name} and pictures"
    )

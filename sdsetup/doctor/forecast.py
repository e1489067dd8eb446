"""What a named model needs: by the plan of its conversion or a package's graphs; else what its kind needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sdsetup.doctor.purpose import Kind, Purpose, purpose
from sdsetup.errors import UsageError
from sdsetup.machine.facts import Environment


def purpose_for(kind: Kind, model: str) -> Purpose:
    """Say what a use of a model usually needs, and see that the model is one.

    Args:
        kind: The use.
        model: A Hub repository, a folder, a single file or its address, or empty.

    Raises:
        UsageError: The model is neither a folder that exists nor a repository's name.
    """
    if "://" in model or (kind == "convert" and Path(model).expanduser().is_file()):
        return replace(purpose(kind), model=model)
    on_hub = model.count("/") == 1 and not model.startswith((".", "~", "/")) and "\\" not in model
    if model and model != "demo" and not on_hub and not Path(model).expanduser().is_dir():
        raise UsageError(
            "doctor.model", f"There is no folder {model}.", "name a folder, or OWNER/NAME on the Hub."
        )
    return replace(purpose(kind), model=model)


def is_planned(wanted: Purpose) -> bool:
    """Whether needs are reckoned for the named model: for every conversion, and for images of a package."""
    if wanted.kind == "generate":
        return bool(wanted.model) and Path(wanted.model).expanduser().is_dir()
    return wanted.kind == "convert" and bool(wanted.model)


def with_plan(wanted: Purpose, environment: Environment) -> Purpose:
    """Replace what the use of a model usually needs by what was reckoned for this model.

    Args:
        wanted: A purpose; it is changed if it is one that is planned.
        environment: The plan, or why there is none.
    """
    if not is_planned(wanted):
        return wanted
    plan = environment.plan
    if plan is None or plan.error:
        reason = plan.error if plan is not None else environment.unknown.get("plan", "it was not planned")
        return replace(wanted, unknown=reason)
    if plan.converting:
        wanted = replace(wanted, cache_bytes=plan.download_bytes, output_bytes=plan.package_bytes)
    return replace(
        wanted,
        ram_bytes=plan.ram_bytes,
        ram_least_bytes=plan.ram_least_bytes,
        vram_bytes=plan.vram_bytes or 0,
        vram_least_bytes=plan.vram_least_bytes or 0,
        basis=f"{wanted.model}, as its plan reckons" if plan.converting else f"images of {wanted.model}",
    )

"""What a named model needs, from its plan or its files where they are here; else what its kind needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sdsetup.doctor.purpose import Kind, Purpose, purpose
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
    if kind == "convert":
        return _of_checkpoint(usual, folder)
    if kind == "generate":
        return _of_package(usual, folder)
    return usual


def _of_checkpoint(usual: Purpose, folder: Path) -> Purpose:
    try:
        from conversions.checkpoint import open_folder
        from conversions.errors import ConversionError
        from conversions.options import Options
        from conversions.plan import make_plan
        from sdsetup import workflow
    except ModuleNotFoundError:  # a bare Python cannot plan
        return usual
    try:
        plan = make_plan(open_folder(folder), Options(), workflow.graph_cache())
    except ConversionError:  # convert itself says what is wrong with it
        return usual
    return replace(
        usual,
        cache_bytes=0,
        output_bytes=plan.package_bytes,
        ram_bytes=max(plan.ram_bytes, plan.check_ram_bytes),
        basis=f"{folder.name}, as its plan reckons",
    )


def _of_package(usual: Purpose, folder: Path) -> Purpose:
    weights = sum(file.stat().st_size for file in folder.glob("*/model.onnx*"))
    if not weights:
        return usual
    needed = weights + _ACTIVATION_BYTES
    return replace(
        usual, ram_bytes=needed, vram_bytes=needed, basis=f"the weights of {folder.name} and pictures"
    )

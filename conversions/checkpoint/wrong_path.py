"""What a person may have meant who names a file or a folder of another kind than is wanted."""

from __future__ import annotations

from pathlib import Path

_SHOWN = 4


def pipeline_of(path: Path) -> Path | None:
    """Return the diffusers pipeline that a component's folder, or a file of a component, belongs to.

    Single files may lie beside a pipeline's ``model_index.json`` and belong to none.
    """
    index = "model_index.json"
    if path.name == index or (path.is_dir() and (path.parent / index).is_file()):
        return path.parent
    if (path.parent / "config.json").is_file() and (path.parent.parent / index).is_file():
        return path.parent.parent
    return None


def not_a_file(path: Path, what: str) -> tuple[str, str]:
    """Say why a path is not the file that is wanted.

    Args:
        path: What was named; a folder, or nothing that is there.
        what: What the file would hold, such as ``"an adapter"``.

    Returns:
        A message and a hint.
    """
    if not path.is_dir():
        return f"There is no file {path}.", f"Check the spelling; {what} is one file on this machine."
    files = sorted(each.name for each in path.iterdir() if each.suffix.casefold() == ".safetensors")
    listed = ", ".join(str(path / name) for name in files[:_SHOWN])
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return (
        f"{path} is a folder; {what} is one file.",
        f"Give one of its files: {listed}{more}."
        if files
        else "Give a file: the folder holds no .safetensors.",
    )

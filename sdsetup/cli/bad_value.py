"""Say in plain words why the value of an option cannot be read; typer passes pydantic's on."""

from __future__ import annotations

from typing import Any

_PREFIX = "Value error, "
_BOUNDS = {
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:g} or less",
    "greater_than": "more than {gt:g}",
    "less_than": "less than {lt:g}",
}


def in_plain_words(error: Any) -> str:
    """Say what an option takes, and what it was given.

    Args:
        error: What typer raised.

    Returns:
        A sentence; empty where the error is no such value, or speaks plainly itself.
    """
    listed = getattr(error.__cause__, "errors", None)
    parameter = getattr(error, "param", None)
    if listed is None or parameter is None:
        return ""
    first = listed()[0]
    name = max(parameter.opts, key=len)
    wanted = _wanted(str(first["type"]), first.get("ctx", {}))
    if wanted:
        return f"{name} takes {wanted}, not {str(first['input'])!r}."
    return f"{name}: {str(first['msg']).removeprefix(_PREFIX)}"


def _wanted(kind: str, limits: dict[str, Any]) -> str:
    if kind.startswith("int_"):
        return "a whole number"
    if kind.startswith(("float_", "finite_")):
        return "a number"
    return _BOUNDS[kind].format(**limits) if kind in _BOUNDS else ""

"""The library's exception: its parts, and its way from one process to another."""

from __future__ import annotations

import pickle

import pytest

from conversions.errors import ConversionError


def test_an_error_has_code_message_hint_and_details() -> None:
    details = {"model": "a", "names": ("b", "c")}
    error = ConversionError("a.b", "It failed.", "Do this.", details)
    assert (error.code, error.message, error.hint, str(error)) == (
        "a.b",
        "It failed.",
        "Do this.",
        "It failed.",
    )
    assert error.details == details
    details["model"] = "changed"
    assert error.details["model"] == "a"
    with pytest.raises(TypeError):
        error.details["model"] = "b"  # type: ignore[index]
    short = ConversionError("a.b", "It failed.")
    assert (short.hint, dict(short.details)) == ("", {})


def test_every_part_comes_from_another_process() -> None:
    class_and_parts = ConversionError("a.b", "It failed.", "Do this.", {"names": ("b",)})
    error = pickle.loads(pickle.dumps(class_and_parts))  # noqa: S301
    assert type(error) is ConversionError
    assert (error.code, error.message, error.hint) == ("a.b", "It failed.", "Do this.")
    assert error.details == {"names": ("b",)}
    assert str(error) == "It failed."

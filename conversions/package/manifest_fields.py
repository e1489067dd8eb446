"""What a package's manifest must hold, and of which type, before anything is believed of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from conversions.errors import ConversionError
from conversions.weights.quantize import BITS

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHOWN_CHARACTERS = 60
# No file is larger, and JSON's whole numbers have no end: arithmetic on them would fail far from here.
_LARGEST = 2**63 - 1
# What is merged into weights or learned: the fields of each entry, with their types.
_ADDED: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "adapters": {"name": (str,), "weight": (int, float), "sha256": (str,)},
    "embeddings": {"name": (str,), "token": (str,), "vectors": (int,), "sha256": (str,)},
}


def check_fields(manifest: Mapping[str, Any], place: str) -> None:
    """Check what readers of a manifest rely on: types, hashes, and names that stay inside the package.

    Args:
        manifest: The parsed manifest.
        place: Where it comes from, for messages.

    Raises:
        ConversionError: ``package.torn``; names the field.
    """
    for name in ("target", "precision", "checkpoint.origin"):
        _demand(_field(manifest, name), str, "a text", name, place)
    for name in ("submodels", "files", "checkpoint"):
        _demand(_field(manifest, name), dict, "an object", name, place)
    for name in ("checkpoint.sha256", "linked"):
        _demand(_field(manifest, name, default={}), dict, "an object", name, place)
    for submodel, entry in manifest["submodels"].items():
        if not re.fullmatch(r"\w+", submodel):
            raise _torn(place, "submodels", submodel, "the name of a submodel")
        _demand(entry, dict, "an object", f"submodels.{submodel}", place)
        for key, kind, words in (("precision", str, "a text"), ("quantized", dict, "an object")):
            if key in entry:
                _demand(entry[key], kind, words, f"submodels.{submodel}.{key}", place)
        quantized = entry.get("quantized", {})
        weights = quantized.get("weights", [])
        if not isinstance(weights, list) or not all(isinstance(weight, str) for weight in weights):
            raise _torn(place, f"submodels.{submodel}.quantized.weights", weights, "a list of names")
        given = quantized.get("precision")
        if weights and not (isinstance(given, str) and given in BITS):
            raise _torn(place, f"submodels.{submodel}.quantized.precision", given, " or ".join(BITS))
    for name, keys in _ADDED.items():
        entries = manifest.get(name, [])
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and entry.keys() == keys.keys() and _typed(entry, keys)
            for entry in entries
        ):
            raise _torn(place, name, entries, f"a list of objects with {', '.join(keys)}")
    needs = _field(manifest, "memory.submodels", default={})
    _demand(needs, dict, "an object", "memory.submodels", place)
    for submodel, entry in needs.items():
        needed = entry.get("device_bytes") if isinstance(entry, dict) else None
        if not _is_size(needed):
            raise _torn(place, f"memory.submodels.{submodel}", entry, "device_bytes and other sizes")
    for name, entry in manifest.get("linked", {}).items():
        fields = entry if isinstance(entry, dict) else {}
        if not isinstance(fields.get("file"), str) or type(fields.get("modified_ns")) is not int:
            raise _torn(place, f"linked.{name}", entry, "a file and a modified_ns")
        if name not in manifest["files"]:
            raise _torn(place, "linked", name, "one of the package's files")
    for name, entry in manifest["files"].items():
        if not is_inside(name):
            raise _torn(place, "files", name, "a path inside the package")
        fields = entry if isinstance(entry, dict) else {}
        size, sha256 = fields.get("size_bytes"), fields.get("sha256")
        if not (
            _is_size(size) and isinstance(sha256, str) and _SHA256.fullmatch(sha256) and len(fields) == 2
        ):
            raise _torn(place, f"files.{name}", entry, "a size_bytes and a sha256")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _typed(entry: Mapping[str, Any], keys: Mapping[str, tuple[type, ...]]) -> bool:
    return all(
        type(entry[key]) in kinds and (isinstance(entry[key], str) or -_LARGEST <= entry[key] <= _LARGEST)
        for key, kinds in keys.items()
    )


def is_inside(name: str) -> bool:
    """Whether a file's name leads to a place below the folder that it is in, on any system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or bool(windows.drive or windows.root)
    return bool(posix.parts) and not absolute and ".." not in windows.parts and "\0" not in name


def _field(manifest: Mapping[str, Any], name: str, default: Any = None) -> Any:
    value: Any = manifest
    for key in name.split("."):
        value = value.get(key, default) if isinstance(value, dict) else None
    return value


def _demand(value: Any, kind: type, words: str, name: str, place: str) -> None:
    if not isinstance(value, kind):
        raise _torn(place, name, value, words)


def _torn(place: str, name: str, value: Any, words: str) -> ConversionError:
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[: _SHOWN_CHARACTERS - 3]}..."
    return ConversionError(
        "package.torn",
        f"{place} says {name}: {shown}; it must be {words}.",
        "Convert the checkpoint again.",
    )

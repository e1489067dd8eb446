"""Read an adapter file: its layers, their scales, and what in it belongs to none."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conversions.checkpoint.element_types import element_type
from conversions.checkpoint.safetensors_header import StoredTensor, read_header
from conversions.checkpoint.storage import Folder
from conversions.checkpoint.wrong_path import not_a_file
from conversions.errors import ConversionError
from conversions.weights.lora.adapter_keys import parse_key

# Source: the safetensors format: the length of the header in 8 bytes, then the header.
_LENGTH_BYTES = 8
# JSON's whole numbers may be larger than any float.
_LARGEST = sys.float_info.max
# What diffusers writes PEFT's configuration under, in the header's metadata.
_PEFT_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The change of one module.

    Attributes:
        module: The module's name as the file writes it.
        parts: Its tensors by part; see ``adapter_keys``.
        keys: The file's own names of them.
        scale: What the change is multiplied by: alpha over rank; 1 where the file gives no alpha.
    """

    module: str
    parts: Mapping[str, StoredTensor]
    keys: tuple[str, ...]
    scale: float


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """An adapter file, read but for its large tensors.

    Attributes:
        path: The file.
        sha256: Hash of the file.
        layers: Its layers, in the order of the file.
        strange: Keys that no format has.
    """

    path: Path
    sha256: str
    layers: tuple[Layer, ...] = field(repr=False)
    strange: tuple[str, ...] = field(repr=False)


def read_adapter(path: Path, name: str) -> AdapterFile:
    """Read an adapter file.

    Args:
        path: A safetensors file.
        name: What the file is called in the storage that its tensors will be read from.

    Raises:
        ConversionError: ``lora.missing``, ``lora.format``, or the file is damaged.
    """
    if not path.is_file():
        message, hint = not_a_file(path, "an adapter")
        raise ConversionError("lora.missing", message, hint)
    if path.suffix.casefold() in (".pt", ".pth", ".bin", ".ckpt"):
        raise ConversionError(
            "lora.format",
            f"{path} is a pickle, a format that can carry programs; adapters are read as safetensors.",
            "Look for the same adapter as a .safetensors file.",
        )
    tensors = {
        key: replace(tensor, file=name) for key, tensor in read_header(Folder(path.parent), path.name).items()
    }
    grouped: dict[str, dict[str, StoredTensor]] = {}
    keys: dict[str, list[str]] = {}
    strange = []
    for key, tensor in tensors.items():
        found = parse_key(key)
        if found is None or found.part in grouped.get(found.module, {}):
            strange.append(key)
            continue
        element_type(tensor)
        grouped.setdefault(found.module, {})[found.part] = tensor
        keys.setdefault(found.module, []).append(key)
    if not grouped:
        shown = ", ".join(list(tensors)[:3]) or "nothing"
        raise ConversionError(
            "lora.format",
            f"{path} is no adapter of a known format; it holds {shown}.",
            "Known are LoRA of kohya and PEFT, LoCon, LoHa, LoKr, DoRA and full differences.",
        )
    settings = _peft_settings(path)
    layers = []
    with path.open("rb") as file:
        for module, parts in grouped.items():
            alpha = parts.pop("alpha", None)
            number = None if alpha is None else _number(file, alpha, path)
            if parts:
                layers.append(
                    Layer(
                        module=module,
                        parts=parts,
                        keys=tuple(keys[module]),
                        scale=_scale(module, parts, number, settings, path),
                    )
                )
            else:
                strange += keys[module]
    return AdapterFile(path=path, sha256=sha256_of(path), layers=tuple(layers), strange=tuple(strange))


def sha256_of(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _number(file: Any, tensor: StoredTensor, path: Path) -> float:
    """Read a tensor of one element."""
    found = element_type(tensor)
    if math.prod(tensor.shape) != 1:
        raise _broken(path, f"its {tensor.name} has the shape {list(tensor.shape)} instead of one number")
    file.seek(tensor.offset)
    number = float(found.decode(bytearray(file.read(tensor.size_bytes)))[0])
    if not math.isfinite(number):
        raise _broken(path, f"its {tensor.name} is {number}")
    return number


def _scale(
    module: str,
    parts: Mapping[str, StoredTensor],
    alpha: float | None,
    settings: Mapping[str, Any],
    path: Path,
) -> float:
    """Return alpha over rank.

    Source: ``LoRAModule.__init__`` of sd-scripts: an alpha of 0 or none is the rank; LyCORIS does the same,
    and ignores alpha where LoKr keeps both factors whole. PEFT: ``LoraLayer.update_layer``; its alpha stands
    in the metadata that diffusers writes, or is the rank.
    """
    rank = _rank(parts)
    if rank is None:
        return 1.0
    if rank == 0:
        raise _broken(path, f"its {module} has the rank 0")
    root = False
    if alpha is None:
        component, _, inner = module.partition(".")
        own = {
            name.removeprefix(f"{component}."): value
            for name, value in settings.items()
            if name.startswith(f"{component}.")
        }
        pattern = own.get("alpha_pattern")
        alpha = own.get("lora_alpha")
        if isinstance(pattern, dict):
            alpha = pattern.get(inner, alpha)
        root = own.get("use_rslora") is True
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) <= _LARGEST:
            return 1.0
    return float(alpha / (math.sqrt(rank) if root else rank)) if alpha else 1.0


def _rank(parts: Mapping[str, StoredTensor]) -> int | None:
    """Return the rank of a layer; None where its change is not of low rank.

    Source: LyCORIS and ComfyUI (comfy/weight_adapter) alike take the first axis of the right factor.
    """
    for part in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if part in parts:
            shape = parts[part].shape
            return shape[0] if shape else 0
    return None


def _peft_settings(path: Path) -> Mapping[str, Any]:
    """Read what diffusers writes of PEFT's configuration; empty where there is none."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
        try:
            metadata = json.loads(file.read(length)).get("__metadata__", {})
            settings = json.loads(metadata[_PEFT_METADATA])
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return {}
    return settings if isinstance(settings, dict) else {}


def _broken(path: Path, reason: str) -> ConversionError:
    return ConversionError("lora.broken", f"{path} cannot be used: {reason}.", "Download this file again.")

"""Adapter files with something changed at random, and what comes of them."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np

from conversions.checkpoint.folder import component_tensors, open_folder
from conversions.errors import ConversionError
from conversions.weights.expression import evaluate_range
from conversions.weights.lora.request import AdapterRequest
from conversions.weights.lora.with_adapters import with_adapters
from conversions.weights.read_numbers import read_numbers

_SUFFIXES = (
    *(".lora_mid.weight", ".alpha", ".dora_scale", ".hada_t1", ".lokr_w1", ".lokr_t2", ".diff", ".diff_b"),
    *(".lora_up.weight", ".lora_A.weight", ".processor.to_q_lora.down.weight", "", ".weight", ".w_norm"),
)
_SHAPES = ([], [0], [1], [3, 0], [1, 1, 1, 1], [2**31, 2**31], [-1], [3], "x", None, [2.5], [3] * 70)
_TYPES = ("F16", "BF16", "F64", "I8", "F8_E4M3", "BOOL", "X", None, 3)


def mutated(source: Path, target: Path, seed: int) -> Path:
    """Write a copy of an adapter with one to three changes; equal seeds make equal ones."""
    draw = random.Random(seed)
    content = source.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    for _ in range(draw.randint(1, 3)):
        name = draw.choice([each for each in header if each != "__metadata__"] or ["x"])
        entry = header.get(name)
        if not isinstance(entry, dict) or "shape" not in entry:  # it may have changed places with metadata
            entry = header[name] = {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}
        match draw.randrange(10):
            case 0:
                header.pop(name)
            case 1:
                header[name.rpartition(".")[0] + draw.choice(_SUFFIXES)] = header.pop(name)
            case 2:
                entry["shape"] = draw.choice(_SHAPES)
            case 3:
                entry["dtype"] = draw.choice(_TYPES)
            case 4:
                entry["data_offsets"] = draw.choice(([0, 1], [5, 2], [-4, 0], [0, 2**62], "x", None, [0]))
            case 5:
                if isinstance(entry["shape"], list) and len(entry["shape"]) > 1:
                    entry["shape"] = draw.sample(entry["shape"], len(entry["shape"]))
            case 6:
                data = data[: draw.randrange(len(data) + 1)]
            case 7:
                for _ in range(20):
                    if data:
                        data[draw.randrange(len(data))] = draw.choice((0, 127, 128, 255))
            case 8:
                header["__metadata__"] = draw.choice(
                    (None, 3, {"lora_adapter_metadata": "{"}, {"lora_adapter_metadata": "[1]"}, {"x": 1})
                )
            case 9:
                draw_from, other = draw.sample(list(header), 2) if len(header) > 1 else (name, name)
                header[draw_from], header[other] = header[other], header[draw_from]
    text = json.dumps(header).encode()
    if draw.random() < 0.05:
        text = text[: draw.randrange(len(text))]
    target.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return target


def tried(checkpoint: Path, path: Path) -> str:
    """Merge an adapter; return ``"used"`` or the code of the error that it is refused with."""
    try:
        opened = with_adapters(
            open_folder(checkpoint), [AdapterRequest(path=path)], ignore_unmatched=True
        ).checkpoint
    except ConversionError as error:
        return error.code
    storage = opened.storage
    read = read_numbers({name: storage.path_of(name) for name in storage.names()})
    for component in opened.components.values():
        if component.transforms:
            for expression in component_tensors(storage, component).values():
                if expression.dtype == "F32" and list(expression.operands):
                    with np.errstate(all="ignore"):
                        evaluate_range(expression, 0, expression.size, read)
    return "used"

"""Adapter files with random weights for a checkpoint, in every format and naming; and what they should do.

``delta`` computes a layer's change in float64 from the published formulas, apart from the code under test.
Each change is about as large as half of its weight, so that images differ visibly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# What trainers change: attention, feed forward and its projections; with convolutions those of LoCon.
LINEAR = re.compile(
    r"(to_[qkv]|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out)$|[qkv]_proj$|out_proj$|fc[12]$"
)
CONVOLUTIONS = re.compile(LINEAR.pattern + r"|conv[12]$|conv_shortcut$|time_emb_proj$|samplers\.0\.conv$")
KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
RANK = 3


@dataclass(frozen=True, kw_only=True)
class Module:
    """A module of a checkpoint: its component, its name there and its weight."""

    component: str
    name: str
    weight: Doubles


def modules(checkpoint: Path, pattern: re.Pattern[str] = LINEAR) -> Iterator[Module]:
    """Yield the modules of the U-Net and the text encoders that trainers change."""
    from safetensors.numpy import load_file

    for component in KOHYA:
        for file in sorted((checkpoint / component).glob("*.safetensors")):
            for name, weight in sorted(load_file(file).items()):
                module = name.removesuffix(".weight")
                if name.endswith(".weight") and pattern.search(module):
                    yield Module(component=component, name=module, weight=weight.astype(np.float64))


def factors(algorithm: str, shape: tuple[int, ...], random: np.random.Generator) -> dict[str, Doubles]:
    """Return the random parts of one layer."""
    out, inner, *kernel = shape

    def draw(*sizes: int) -> Doubles:
        return random.standard_normal(sizes)

    if algorithm in ("lora", "dora", "dora by column", "peft dora"):
        return {"down": draw(RANK, inner, *kernel), "up": draw(out, RANK, *([1] * len(kernel)))}
    if algorithm == "tucker":
        if not kernel or kernel == [1, 1]:
            return factors("lora", shape, random)
        return {
            "down": draw(RANK, inner, 1, 1),
            "up": draw(out, RANK, 1, 1),
            "mid": draw(RANK, RANK, *kernel),
        }
    if algorithm == "loha":
        width = inner * int(np.prod(kernel))
        return {
            **{f"hada_w{place}_a": draw(out, RANK) for place in (1, 2)},
            **{f"hada_w{place}_b": draw(RANK, width) for place in (1, 2)},
        }
    if algorithm == "loha tucker":
        if not kernel or kernel == [1, 1]:
            return factors("loha", shape, random)
        return {
            **{f"hada_w{place}_a": draw(RANK, out) for place in (1, 2)},
            **{f"hada_w{place}_b": draw(RANK, inner) for place in (1, 2)},
            **{f"hada_t{place}": draw(RANK, RANK, *kernel) for place in (1, 2)},
        }
    rows, columns = (2, out // 2), (4 if inner % 4 == 0 else 1,)
    a, b, c = rows[0], rows[1], columns[0]
    d = inner // c
    if algorithm == "lokr whole":
        return {"lokr_w1": draw(a, c), "lokr_w2": draw(b, d, *kernel)}
    if algorithm == "lokr":
        return {
            "lokr_w1": draw(a, c),
            "lokr_w2_a": draw(b, RANK),
            "lokr_w2_b": draw(RANK, d * int(np.prod(kernel))),
        }
    if algorithm == "lokr both":
        return {
            "lokr_w1_a": draw(a, RANK),
            "lokr_w1_b": draw(RANK, c),
            "lokr_w2_a": draw(b, RANK),
            "lokr_w2_b": draw(RANK, d * int(np.prod(kernel))),
        }
    if algorithm == "lokr tucker":
        if not kernel or kernel == [1, 1]:
            return factors("lokr", shape, random)
        return {
            "lokr_w1": draw(a, c),
            "lokr_t2": draw(RANK, RANK, *kernel),
            "lokr_w2_a": draw(RANK, b),
            "lokr_w2_b": draw(RANK, d),
        }
    assert algorithm == "full", algorithm
    return {"diff": draw(*shape)}


ALGORITHMS = (
    "lora", "tucker", "loha", "loha tucker", "lokr", "lokr whole", "lokr both", "lokr tucker", "full",
    "dora", "dora by column",
)  # fmt: skip


def delta(parts: Mapping[str, Doubles], shape: tuple[int, ...], alpha: float | None) -> Doubles:
    """Return a layer's change in float64, its alpha over its rank included.

    Source: LyCORIS 4.1, lycoris/functional; ``torch.kron`` and ``numpy.kron`` agree.
    """
    out, inner, *kernel = shape
    if "diff" in parts:
        return parts["diff"].reshape(shape)
    if "down" in parts:
        up, down = parts["up"].reshape(out, -1), parts["down"]
        rank = down.shape[0]
        if "mid" in parts:
            change = np.einsum("or,rs...,si->oi...", up, parts["mid"], down.reshape(rank, inner))
        else:
            change = np.tensordot(up, down, 1)
    elif "hada_w1_a" in parts:
        rank = parts["hada_w1_b"].shape[0]
        halves = [
            np.einsum(
                "ro,rs...,si->oi...",
                parts[f"hada_w{place}_a"],
                parts[f"hada_t{place}"],
                parts[f"hada_w{place}_b"],
            )
            if f"hada_t{place}" in parts
            else parts[f"hada_w{place}_a"] @ parts[f"hada_w{place}_b"]
            for place in (1, 2)
        ]
        change = halves[0].reshape(shape) * halves[1].reshape(shape)
    else:
        rank = None
        first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
        if "lokr_w2" in parts:
            second = parts["lokr_w2"]
        elif "lokr_t2" in parts:
            second = np.einsum("ro,rs...,si->oi...", parts["lokr_w2_a"], parts["lokr_t2"], parts["lokr_w2_b"])
        else:
            second = parts["lokr_w2_a"] @ parts["lokr_w2_b"]
        if "lokr_w2_b" in parts or "lokr_w1_b" in parts:
            rank = RANK
        second = second.reshape(out // first.shape[0], inner // first.shape[1], *kernel)
        change = np.kron(first.reshape(*first.shape, *([1] * len(kernel))), second)
    scale = alpha / rank if alpha and rank else 1.0
    return change.reshape(shape) * scale


def changed(weight: Doubles, parts: Mapping[str, Doubles], alpha: float | None, factor: float) -> Doubles:
    """Return a weight with a layer's change, in float64; DoRA where the parts have lengths."""
    own = {name: value for name, value in parts.items() if name not in ("dora_scale", "magnitude")}
    result = weight + delta(own, weight.shape, alpha)
    lengths = parts.get("dora_scale", parts.get("magnitude"))
    if lengths is not None:
        flat = result.reshape(len(result), -1)
        if "dora_scale" in parts and lengths.shape[0] == 1:
            norms = np.sqrt((result.reshape(*result.shape[:2], -1) ** 2).sum(axis=(0, 2)))
            result = result * (lengths.reshape(-1) / norms).reshape(1, -1, *([1] * (weight.ndim - 2)))
        else:
            norms = np.linalg.norm(flat, axis=1)
            result = (flat * (lengths.reshape(-1) / norms)[:, None]).reshape(weight.shape)
    return weight + factor * (result - weight)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What an adapter file holds: the parts of each layer, and its alpha, by component and module."""

    layers: Mapping[tuple[str, str], tuple[Mapping[str, Doubles], float | None]]


def make(
    checkpoint: Path,
    algorithm: str,
    *,
    seed: int = 0,
    alpha: float | None = 2.0,
    components: tuple[str, ...] = tuple(KOHYA),
    convolutions: bool = True,
) -> Adapter:
    """Make up an adapter for a checkpoint; equal seeds make equal ones."""
    random = np.random.default_rng(seed)
    layers = {}
    for module in modules(checkpoint, CONVOLUTIONS if convolutions else LINEAR):
        if module.component not in components:
            continue
        parts = factors(algorithm, module.weight.shape, random)
        size = np.std(delta(parts, module.weight.shape, alpha))
        last = max(parts)
        parts[last] = parts[last] * (0.5 * np.std(module.weight) / size)
        parts = {name: value.astype(np.float32).astype(np.float64) for name, value in parts.items()}
        if "dora" in algorithm:
            shape = module.weight.shape
            ones = [1] * (len(shape) - 2)
            if algorithm == "dora by column":
                parts["dora_scale"] = random.uniform(1, 2, (1, shape[1], *ones))
            elif algorithm == "dora":
                parts["dora_scale"] = random.uniform(1, 2, (shape[0], 1, *ones))
            else:
                parts["magnitude"] = random.uniform(1, 2, (1, shape[0], *ones) if ones else shape[:1])
        layers[module.component, module.name] = (parts, alpha)
    return Adapter(layers=layers)


_KOHYA_PARTS = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
_PEFT_PARTS = {"down": "lora_A.weight", "up": "lora_B.weight", "magnitude": "lora_magnitude_vector"}


def write(adapter: Adapter, path: Path, naming: str = "kohya", *, dtype: str = "float32") -> Path:
    """Write an adapter file.

    Args:
        adapter: What it holds.
        path: Where to.
        naming: ``"kohya"``, ``"original"`` (kohya with the names of the first publication), ``"peft"``, or
            ``"old diffusers"``.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
    """
    import torch
    from safetensors.torch import save_file

    tensors = {}
    metadata = {}
    for (component, module), (parts, alpha) in adapter.layers.items():
        flat = module if component == "unet" or module.startswith("text_model.") else f"text_model.{module}"
        if naming in ("kohya", "original"):
            name = flat
            if naming == "original" and component == "unet":
                name = original_name(module, {name for part, name in adapter.layers if part == "unet"})
            stem = f"{KOHYA[component]}_{name.replace('.', '_')}"
            named = {_KOHYA_PARTS.get(part, part): value for part, value in parts.items()}
            if alpha is not None:
                named["alpha"] = np.asarray(alpha)
        elif naming == "peft":
            stem = f"{component}.{flat}"
            named = {_PEFT_PARTS.get(part, part): value for part, value in parts.items()}
            if alpha is not None:
                metadata[f"{component}.r"] = RANK
                metadata[f"{component}.lora_alpha"] = alpha
                metadata[f"{component}.target_modules"] = sorted(
                    {name for part, name in adapter.layers if part == component}
                )
        else:
            stem = f"{component}.{flat}"
            kind = "lora" if component == "unet" else "lora_linear_layer"
            named = {f"{kind}.{part}.weight": value for part, value in parts.items()}
        tensors |= {
            f"{stem}.{part}": torch.from_numpy(np.array(value)).to(getattr(torch, dtype)).contiguous()
            for part, value in named.items()
        }
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(metadata)} if metadata else None)
    return path


_RESNETS = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def original_name(module: str, present: set[str]) -> str:
    """Return the name that a module of a tiny U-Net had in the first publication, by hand.

    The tiny U-Nets have two levels of one layer: input blocks 1 (layer), 2 (downsampler), 3 (layer); output
    blocks 0 and 1 (level 0, the second with the upsampler), 2 and 3.
    """
    found = re.match(r"(down_blocks|up_blocks)\.(\d)\.(\w+)\.(\d)\.(.+)$", module)
    if found is None:
        middle = re.match(r"mid_block\.(\w+)\.(\d)\.(.+)$", module)
        assert middle is not None, module
        place = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return f"middle_block.{place}.{_RESNETS.get(middle[3], middle[3])}"
    side, level, kind, layer, inner = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if side == "down_blocks":
        number = {0: 1, 1: 3}[level]
        if kind == "downsamplers":
            return "input_blocks.2.0.op"
        return f"input_blocks.{number}.{int(kind == 'attentions')}.{_RESNETS.get(inner, inner)}"
    number = 2 * level + layer
    if kind == "upsamplers":
        attended = any(name.startswith("up_blocks.0.attentions") for name in present)
        return f"output_blocks.1.{2 if attended else 1}.conv"
    return f"output_blocks.{number}.{int(kind == 'attentions')}.{_RESNETS.get(inner, inner)}"

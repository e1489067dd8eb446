"""Which of a component's weight files to read: a rule over names alone, shared by folders and the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from conversions.errors import ConversionError

Format = Literal["safetensors", "pickle"]

# What diffusers and transformers call the weights of a component, per file format.
_STEMS: dict[Format, tuple[str, ...]] = {
    "safetensors": ("diffusion_pytorch_model", "model"),
    "pickle": ("diffusion_pytorch_model", "pytorch_model"),
}
_SUFFIXES: dict[Format, str] = {"safetensors": "safetensors", "pickle": "bin"}

# Precisions of one and the same set of values, best first; "" is the file without a variant in its name.
# Others ("non_ema", "ema_only") are other values, and are never taken for these.
_PRECISIONS = ("", "fp32", "fp16", "bf16")


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """The weights of one component.

    Attributes:
        files: Names that hold tensors, in order; several when the weights are sharded. Names are as given.
        index: The JSON that says which shard holds which tensor; None for a single file.
        format: ``"safetensors"`` is data; ``"pickle"`` is a program that a careful reader must restrict.
        variant: ``"fp16"``, ``"bf16"``, ``"fp32"``, or empty for the file that names none.
    """

    files: tuple[str, ...]
    index: str | None
    format: Format
    variant: str

    @property
    def names(self) -> tuple[str, ...]:
        """Every file to have at hand: the tensors' files and the index."""
        return (*self.files, *((self.index,) if self.index else ()))


def choose(names: Iterable[str], component: str, *, variant: str = "") -> WeightFiles:
    """Choose one set of weight files of a component.

    safetensors are preferred over pickles whatever their precision; then the asked variant, then the file
    without a variant, then fp32, fp16, bf16. Averages (EMA) apart, Flax, TensorFlow, OpenVINO and ONNX copies
    are never chosen. A sharded set counts only when all its shards are there.

    Args:
        names: File names relative to the checkpoint, with ``/`` between folders.
        component: Folder of the component in the checkpoint; empty for its own folder.
        variant: The precision to prefer, for example ``"fp16"``.

    Returns:
        The chosen files.

    Raises:
        ConversionError: ``weights.absent`` when no usable weights of the component are among ``names``.
    """
    prefix = f"{component}/" if component else ""
    present = {name[len(prefix) :] for name in names if name.startswith(prefix)}
    wanted = tuple(dict.fromkeys((variant, *_PRECISIONS)))
    for format_ in _STEMS:
        for precision in wanted:
            found = _find(present, format_, precision)
            if found is not None:
                files, index = found
                return WeightFiles(
                    files=tuple(prefix + name for name in files),
                    index=prefix + index if index else None,
                    format=format_,
                    variant=precision,
                )
    others = sorted(name for name in present if "/" not in name)
    raise ConversionError(
        "weights.absent",
        f"The component {component or 'at the top'!r} has no weights that can be read; "
        f"its folder holds {', '.join(others) if others else 'nothing'}.",
        "Expected are diffusion_pytorch_model.safetensors or model.safetensors, whole or in shards.",
    )


def _find(present: set[str], format_: Format, variant: str) -> tuple[Sequence[str], str | None] | None:
    suffix = _SUFFIXES[format_]
    dotted = f".{variant}" if variant else ""
    for stem in _STEMS[format_]:
        whole = f"{stem}{dotted}.{suffix}"
        if whole in present:
            return (whole,), None
        # Libraries have put the variant at three places of an index's name, and at two of a shard's.
        indices = dict.fromkeys(
            (
                f"{stem}.{suffix}.index{dotted}.json",
                f"{stem}.{suffix}{dotted}.index.json",
                f"{stem}{dotted}.{suffix}.index.json",
            )
        )
        index = next((name for name in indices if name in present), None)
        shards = _shards(present, stem, dotted, suffix)
        if index is not None and shards:
            return shards, index
    return None


def _shards(present: set[str], stem: str, dotted: str, suffix: str) -> Sequence[str]:
    number = r"-(\d{5})-of-(\d{5})"
    variant = re.escape(dotted)
    shape = re.compile(
        rf"{re.escape(stem)}(?:{variant}{number}|{number}{variant})\.{suffix}"
        if dotted
        else rf"{stem}{number}\.{suffix}"
    )
    found: dict[int, dict[int, str]] = {}
    for name in present:
        match = shape.fullmatch(name)
        if match:
            position, count = (int(group) for group in match.groups() if group is not None)
            found.setdefault(count, {})[position] = name
    # A folder may hold shards of several sets, of which an upload replaced some.
    for count, of_set in sorted(found.items()):
        if sorted(of_set) == list(range(1, count + 1)):
            return [of_set[position] for position in sorted(of_set)]
    return ()

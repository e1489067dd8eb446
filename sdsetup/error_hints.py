"""Suggest the next command for each error code of the library ``conversions``.

The library names no command. Every code that it raises stands in ``HINTS`` or in ``NEEDS_NO_COMMAND``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from conversions.errors import ConversionError

HINTS: Mapping[str, str] = MappingProxyType(
    {
        "checkpoint.corrupt": "Then run the same command again.",
        "checkpoint.is_autoencoder": "With it: sdsetup convert MODEL --vae FILE",
        "checkpoint.component_missing": "From a single file: --vae FOLDER|FILE gives the autoencoder, "
        "--base FOLDER|PACKAGE|OWNER/NAME the rest.",
        "checkpoint.other_base": "With it: --base FOLDER|PACKAGE|OWNER/NAME",
        "checkpoint.optional_missing": "Without it: add --drop-{component}.",
        "component.absent": "Leave out --drop-{component}.",
        "component.required": "Leave out --drop-{component}.",
        "graph.attention": "Convert the checkpoint again: sdsetup convert MODEL --output FOLDER --overwrite",
        "graph.needs_pytorch": "Install them, then run the same command again: sdsetup install --torch",
        "weights.needs_pytorch": "Install it: sdsetup install --torch. Or take the file as .safetensors.",
        "graph.group_norm": "Convert the checkpoint again: sdsetup convert MODEL --output FOLDER --overwrite",
        "lora.unmatched": "Or leave these keys out with --ignore-unmatched.",
        "package.busy": "Wait until it has finished.",
        "package.disk_full": "Free some space and run the same command again, or choose another folder "
        "with --output.",
        "package.exists": "Add --overwrite to replace it, or choose another folder with --output.",
        "package.foreign": "Choose another folder with --output.",
        "package.format": "Convert the checkpoint again: sdsetup convert MODEL --output FOLDER --overwrite",
        "package.here": "Name a new folder: --output NAME",
        "package.invalid_graph": "Convert again: sdsetup convert MODEL --output FOLDER --overwrite",
        "package.link_refused": "Add --copy.",
        "package.missing": "Make one with: sdsetup convert MODEL --output FOLDER",
        "package.not_a_folder": "Choose another folder with --output.",
        "package.quantized": "With it: --base FOLDER|PACKAGE|OWNER/NAME",
        "package.read_only": "Choose a folder of your own with --output.",
        "package.torn": "Convert the checkpoint again: sdsetup convert MODEL --output FOLDER --overwrite",
        "placement.no_kernel": "Convert with the default opset, or for another --target.",
        "process.memory": "Close other programs and run the same command again.",
        "process.not_started": "Run: sdsetup doctor",
        "process.time": "Run the same command again when the machine is less busy.",
        "process.died": "Close other programs and run the same command again.",
        "runtime.missing": "Run: sdsetup doctor",
        "session.failed": "Run: sdsetup doctor",
        "session.fell_back": "sdsetup doctor says what is wrong; --provider cpu runs without a GPU.",
        "session.no_float16": "Convert again with --precision fp32.",
        "tiling.no_resize": "Add --no-vae-tiling.",
        "tiling.operator": "Add --no-vae-tiling.",
        "tiling.shape": "Add --no-vae-tiling.",
        "verify.failed": "Try --precision fp32; if that fails too, please report it.",
        "verify.no_graph": "Install PyTorch with: sdsetup install --torch",
        "verify.no_pytorch": "Install them with: sdsetup install --torch, or add --reference graph.",
        "verify.remote": "Add --no-verify, or convert without --no-cache.",
        "weights.overflow": "Add {submodels:--keep-fp32} to keep that much in float32, "
        "or use --precision fp32.",
        "weights.pickle": "If you trust where it came from, run the same command with --allow-pickle.",
    }
)

# The library's own hint says all: what is supported, or what is wrong with the files.
NEEDS_NO_COMMAND = frozenset(
    {
        "checkpoint.link_outside",
        "checkpoint.lfs_pointer",
        "checkpoint.unreadable",
        "config.invalid",
        "config.untraceable",
        "process.not_importable",
        "tokenizer.broken",
        "tokenizer.missing",
        "tokenizer.unsupported",
        "weights.ambiguous",
        "weights.damaged_pickle",
        "tokenizer.no_embedding",
        "weights.not_finite",
        "checkpoint.is_component",
        "checkpoint.is_embedding",
        "checkpoint.is_lora",
        "checkpoint.missing",
        "checkpoint.not_a_folder",
        "checkpoint.not_a_pipeline",
        "checkpoint.truncated",
        "component.unsupported",
        "embedding.family",
        "embedding.format",
        "embedding.missing",
        "embedding.table",
        "embedding.token",
        "embedding.width",
        "family.unsupported",
        "lora.broken",
        "lora.foreign",
        "lora.format",
        "lora.missing",
        "lora.shape",
        "lora.weight",
        "package.is_file",
        "placement.no_table",
        "placement.shape",
        "placement.size_missing",
        "plan.unknown_submodel",
        "target.unknown",
        "trace.fixed_size",
        "verify.tokenizer",
        "weights.absent",
        "weights.dtype",
        "weights.missing",
        "weights.shape",
        "weights.unsafe_pickle",
    }
)


class _Repeated(tuple[str, ...]):
    """Several values of one option: ``{names:--option}`` becomes ``--option a --option b``."""

    __slots__ = ()

    def __format__(self, option: str) -> str:
        return " ".join(f"{option} {value}" for value in self)


def hint_for(error: ConversionError) -> str:
    """Return what to do about an error: the library's hint, then the command to type.

    Args:
        error: As it was raised. Its ``details`` fill the placeholders of the suggestion.

    Returns:
        One or two sentences; empty when nothing can be done.
    """
    details = {
        name: value if isinstance(value, str) else _Repeated(value) for name, value in error.details.items()
    }
    command = HINTS.get(error.code, "").format_map(details)
    return " ".join(part for part in (error.hint, command) if part)

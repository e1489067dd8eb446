"""Weights that are stored with scales beside them: scaled float8, and forms that are refused by name."""

from __future__ import annotations

from collections.abc import Mapping

from conversions.errors import ConversionError
from conversions.weights.expression import Expression, ScaleRows

# ComfyUI's older files name the scale of ``x.weight`` the first way and hold a marker; newer ones the second.
# Source: ComfyUI's QUANTIZATION.md and comfy/utils.py (convert_old_quants).
_SCALES = {".scale_weight": ".weight", ".weight_scale": ".weight"}
_MARKERS = ("scaled_fp8",)
_OTHER_NOTES = (".scale_input", ".input_scale", ".comfy_quant")
_FLOAT8 = ("F8_E4M3", "F8_E5M2")

# Source: bitsandbytes' QuantState.as_dict, which names what it keeps beside a packed weight.
_BITSANDBYTES = (".absmax", ".nested_absmax", ".quant_map", ".SCB")


def unscaled(tensors: Mapping[str, Expression]) -> Mapping[str, Expression]:
    """Return weights as they are multiplied by the scales beside them, without the scales.

    Args:
        tensors: By the names in their file.

    Raises:
        ConversionError: ``weights.dtype``; they are quantised in a way that cannot be read.
    """
    if any(name.endswith(_BITSANDBYTES) or ".quant_state.bitsandbytes" in name for name in tensors):
        raise ConversionError(
            "weights.dtype",
            "These weights were quantised by bitsandbytes, which only NVIDIA's cards and PyTorch read.",
            "Use the model in float16, bfloat16, float8 or GGUF.",
        )
    scales = {
        name.removesuffix(suffix) + weight: name
        for name in tensors
        for suffix, weight in _SCALES.items()
        if name.endswith(suffix)
    }
    if not scales:
        return tensors
    found: dict[str, Expression] = {}
    for name, tensor in tensors.items():
        if name.endswith((*_SCALES, *_OTHER_NOTES)) or name.rpartition(".")[2] in _MARKERS:
            continue
        if name in scales and tensor.dtype in (*_FLOAT8, "U8", "I8"):
            found[name] = _scaled(name, tensor, tensors[scales[name]])
        else:
            found[name] = tensor
    return found


def _scaled(name: str, tensor: Expression, scale: Expression) -> Expression:
    if tensor.dtype not in _FLOAT8 or scale.size not in (1, tensor.shape[0]):
        raise ConversionError(
            "weights.dtype",
            f"The tensor {name} is stored as {tensor.dtype} {list(tensor.shape)} with scales "
            f"{list(scale.shape)}, a form that cannot be read.",
            "Use the model in float16, bfloat16, float8 with a scale a tensor or a row, or GGUF.",
        )
    return ScaleRows(of=tensor, scales=scale)

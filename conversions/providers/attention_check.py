"""Try ``com.microsoft.MultiHeadAttention`` on a device before a graph keeps it there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from conversions.passes.expand_attention import expand_attention
from conversions.providers.devices import Device
from conversions.shape_inference import infer_shapes
from conversions.verification.metrics import compare

logger = logging.getLogger(__name__)

OpenModel = Callable[[bytes], Any]
"""Opens an ``onnxruntime.InferenceSession`` for a serialized model on the device."""

# (queries, keys): self-attention of 16x16 latents, and cross-attention to a prompt, whose length no power of
# two divides. A bias hides what comes later in a prompt, or padding from an image.
_BATCH = 2
_LENGTHS = ((256, 256), (256, 75))
_BIASED_LENGTHS = ((75, 75), (256, 75))
# Least agreement in dB. Measured with WebGPU: an H200 agrees to 141 and more in float32 and to 71 and more in
# float16, SwiftShader to 35 to 54 in float32.
_LEAST_DB = {"float16": 40.0, "float32": 80.0}


@dataclass(frozen=True, order=True, kw_only=True)
class Attention:
    """What may select another kernel for a MultiHeadAttention.

    Attributes:
        heads: Number of heads.
        head_size: Width of one.
        dtype: numpy's name of the element type.
        biased: Whether an attention bias is added to the scores.
        scale: What scores are multiplied by; 0 is the operator's default, 1 / sqrt(head size).
    """

    heads: int
    head_size: int
    dtype: str
    biased: bool
    scale: float = 0.0


_STATES = {"q": "queries", "k": "keys", "v": "keys"}

_answers: dict[tuple[str, Attention], bool] = {}
"""Whether a device computes a form right, as far as tried in this process."""


def expand_wrong_attention(model: ir.Model, *, device: Device, open_model: OpenModel) -> None:
    """Write out a graph's MultiHeadAttention, in place, where the device computes one of its forms wrong.

    Each form is tried once a process: a model of the operator alone, against the same in numpy.

    Args:
        model: A model whose weights may have no values.
        device: The device, for the log.
        open_model: Opens a session on it.

    Raises:
        ConversionError: An operator cannot be written out; see ``expand_attention``.
    """
    for attention in sorted(attentions_of(model)):
        key = (str(device), attention)
        if key not in _answers:
            _answers[key] = is_right(attention, open_model)
        if not _answers[key]:
            logger.warning(
                "%s does not compute MultiHeadAttention right (%d heads of %d, %s): it is written out, which "
                "is slower.",
                device,
                attention.heads,
                attention.head_size,
                attention.dtype,
            )
            expand_attention(model)
            return


def attentions_of(model: ir.Model) -> set[Attention]:
    """Return the forms of MultiHeadAttention in a graph."""
    operator = ("com.microsoft", "MultiHeadAttention")
    nodes = [node for node in model.graph if (node.domain, node.op_type) == operator]
    if nodes:
        infer_shapes(model)
    found = set()
    for node in nodes:
        query, heads = node.inputs[0], node.attributes.get_int("num_heads", 0)
        width = query.shape[-1] if query is not None and query.shape is not None else None
        if query is not None and isinstance(width, int) and heads:
            dtype = (query.dtype or ir.DataType.FLOAT).numpy().name
            biased = len(node.inputs) > 5 and node.inputs[5] is not None
            scale = float(node.attributes.get_float("scale", 0.0) or 0.0)
            found.add(
                Attention(heads=heads, head_size=width // heads, dtype=dtype, biased=biased, scale=scale)
            )
    return found


def is_right(attention: Attention, open_model: OpenModel) -> bool:
    """Compare the operator on a device with numpy's float32; what fails to run is not right.

    Args:
        attention: What to try; float16 must agree to 40 dB, float32 to 80.
        open_model: Opens a session on the device.
    """
    session = None
    for queries, keys in _BIASED_LENGTHS if attention.biased else _LENGTHS:
        feeds = _inputs(attention, queries, keys)
        try:
            session = session or open_model(_model(attention))
            (got,) = session.run(None, feeds)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no other base
            logger.info("MultiHeadAttention failed: %s", error)
            return False
        expected = _by_definition(attention, feeds)
        if compare(got, expected).psnr_db < _LEAST_DB[attention.dtype]:
            return False
    return True


def _model(attention: Attention) -> bytes:
    element = {"float16": "float16", "float32": "float"}[attention.dtype]
    width = attention.heads * attention.head_size
    inputs = [f"{element}[batch, {length}, {width}] {name}" for name, length in _STATES.items()]
    if attention.biased:
        inputs.append(f"{element}[batch, {attention.heads}, queries, keys] bias")
    given = "q, k, v, , , bias" if attention.biased else "q, k, v"
    named = {"num_heads": attention.heads, **({"scale": attention.scale} if attention.scale else {})}
    attributes = ", ".join(f"{name} = {value}" for name, value in named.items())
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
        g ({", ".join(inputs)}) => ({element}[batch, queries, {width}] mixed)
        {{ mixed = com.microsoft.MultiHeadAttention <{attributes}> ({given}) }}
        """
    )
    return bytes(model.SerializeToString())


def _inputs(attention: Attention, queries: int, keys: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    width = attention.heads * attention.head_size
    feeds = {
        name: random.normal(0, 1, (_BATCH, length, width)).astype(attention.dtype)
        for name, length in (("q", queries), ("k", keys), ("v", keys))
    }
    if attention.biased:
        # Each row and head hides others; the first key is seen by all.
        hidden = random.random((_BATCH, attention.heads, queries, keys)) < 0.3
        hidden[..., 0] = False
        feeds["bias"] = np.where(hidden, -10_000.0, 0.0).astype(attention.dtype)
    return feeds


def _by_definition(attention: Attention, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Compute it in float32. Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2."""

    def by_head(name: str) -> NDArray[np.float32]:
        whole: NDArray[np.float32] = feeds[name].astype(np.float32)
        return whole.reshape(_BATCH, -1, attention.heads, attention.head_size).transpose(0, 2, 1, 3)

    scale = np.float32(attention.scale or 1 / np.sqrt(attention.head_size))
    scores = by_head("q") @ by_head("k").transpose(0, 1, 3, 2) * scale
    if attention.biased:
        scores = scores + feeds["bias"].astype(np.float32)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed: NDArray[np.float32] = (weights / weights.sum(axis=-1, keepdims=True)) @ by_head("v")
    return mixed.transpose(0, 2, 1, 3).reshape(feeds["q"].shape)

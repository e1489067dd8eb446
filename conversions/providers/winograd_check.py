"""Time convolutions on a device, as they are and by Winograd, before a graph is changed."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from conversions.passes.winograd_convolution import winograd_convolution
from conversions.providers import device_answers
from conversions.providers.attention_check import OpenModel
from conversions.providers.devices import Device
from conversions.shape_inference import infer_shapes
from conversions.verification.metrics import compare

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Convolutions of 3x3, one after the other, that are timed.

    Attributes:
        channels: Of input and output.
        side: Height and width in pixels, a multiple of 8.
        images: Batch size.
        convolutions: How many.
    """

    channels: int = 640
    side: int = 32
    images: int = 2
    convolutions: int = 4


STABLE_DIFFUSION = Trial()
"""The second resolution of Stable Diffusion's U-Net at 512x512, for both prompts: 60 GFLOP."""

_MOST_RUNS = 5
# A slow device is not made to wait: its differences are large.
_ENOUGH_SECONDS = 1.0
# Winograd takes memory and time to open, so it has to be worth something.
_LARGEST_SHARE = 0.95
# Least agreement of both in dB. They sum in another order: float16 agrees to 55 and more.
_LEAST_DB = {ir.DataType.FLOAT16: 40.0, ir.DataType.FLOAT: 80.0}
# A small input, repeated on the device, so that little is copied.
_TILE = 8

_answers: dict[tuple[str, ir.DataType], bool] = {}
"""What was found out in this process."""


def is_faster(dtype: ir.DataType, *, device: Device, open_model: OpenModel) -> bool:
    """Return whether a device computes convolutions of 3x3 faster by Winograd; what fails to run is not.

    Drivers have kernels of their own for convolutions, some with Winograd or matrix units inside. Timing
    takes a second or more, so what was found is kept. A software adapter, which would take much longer, is
    not timed.

    Args:
        dtype: Element type, float16 or float32.
        device: The device.
        open_model: Opens a session on it.
    """
    key = (str(device), dtype)
    if key not in _answers:
        _answers[key] = not device.software and _kept_or_timed(dtype, device, open_model)
    return _answers[key]


def _kept_or_timed(dtype: ir.DataType, device: Device, open_model: OpenModel) -> bool:
    question = f"are {dtype.name} convolutions of 3x3 faster by Winograd"
    known = device_answers.kept(device, question)
    if known is not None:
        return known
    # Another process does not time at once, and what ends this one or loses the device is not tried again.
    device_answers.keep(device, question, answer=False, days=1)
    try:
        faster = wins(dtype, open_model)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no other base
        logger.info("A trial of convolutions failed: %s", error)
        return False
    device_answers.keep(device, question, answer=faster)
    return faster


def wins(dtype: ir.DataType, open_model: OpenModel, trial: Trial = STABLE_DIFFUSION) -> bool:
    """Time a trial in both forms; Winograd does not win where it gives other numbers.

    Args:
        dtype: Element type, float16 or float32.
        open_model: Opens a session on the device.
        trial: What is computed.

    Raises:
        Exception: Whatever ONNX Runtime raises when it cannot run a form.
    """
    model = _model(trial, dtype)
    feeds = {"x": _random(0, (trial.images, trial.channels, _TILE, _TILE), dtype)}
    plain = open_model(_serialized(model))
    winograd_convolution(model, None, 1)
    changed = open_model(_serialized(model))
    expected, got = (session.run(None, feeds)[0] for session in (plain, changed))
    plain_seconds, winograd_seconds = _least_seconds((plain, changed), feeds)
    logger.debug(
        "%d convolutions: %.4f s, by Winograd %.4f", trial.convolutions, plain_seconds, winograd_seconds
    )
    return (
        compare(got, expected).psnr_db >= _LEAST_DB[dtype]
        and winograd_seconds <= _LARGEST_SHARE * plain_seconds
    )


def _least_seconds(sessions: Sequence[Any], feeds: dict[str, NDArray[Any]]) -> list[float]:
    """Return the shortest time of a run of each session, in seconds; they take turns."""
    least = [math.inf] * len(sessions)
    began = perf_counter()
    for _ in range(_MOST_RUNS):
        for number, session in enumerate(sessions):
            before = perf_counter()
            session.run(None, feeds)
            least[number] = min(least[number], perf_counter() - before)
        if perf_counter() - began > _ENOUGH_SECONDS:
            break
    return least


def _model(trial: Trial, dtype: ir.DataType) -> ir.Model:
    """Return a model from [images, channels, 8, 8] to the same shape, with all shapes in it."""
    element = {ir.DataType.FLOAT16: "float16", ir.DataType.FLOAT: "float"}[dtype]
    shape = f"{element}[{trial.images}, {trial.channels}, {_TILE}, {_TILE}]"
    times = trial.side // _TILE
    convolutions = "\n".join(
        f"t{number + 1} = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (t{number}, w)"
        for number in range(trial.convolutions)
    )
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 18]>
        g ({shape} x) => ({shape} y)
        <int64[4] times = {{1, 1, {times}, {times}}},
         int64[2] start = {{0, 0}}, int64[2] end = {{{_TILE}, {_TILE}}}, int64[2] axes = {{2, 3}}>
        {{ t0 = Tile (x, times)
          {convolutions}
          y = Slice (t{trial.convolutions}, start, end, axes) }}
        """
    )
    # Of such weights an output has an input's variance.
    weight = _random(1, (trial.channels, trial.channels, 3, 3), dtype) / np.sqrt(9 * trial.channels)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(dtype.numpy()), "w"))
    model = ir.from_proto(proto)
    infer_shapes(model)
    return model


def _serialized(model: ir.Model) -> bytes:
    # What the pass has promised is computed on the way.
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def _random(seed: int, shape: tuple[int, ...], dtype: ir.DataType) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32).astype(dtype.numpy())

"""Norms on DirectML: where float16 goes wrong without a sign, and that our graphs are right there.

The tests of the fault itself say why ``Provider.fp16_variance`` is set for DirectML. Should a later
DirectML.dll be right there, they fail: then the exception can go.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.to_fp16 import to_fp16
from conversions.verification.fp16_overflow import HEADROOM, LARGEST_DEVIATION, find_norms
from conversions.verification.metrics import compare
from tests.windows import on_directml

pytestmark = pytest.mark.directml

Array = np.ndarray[Any, Any]

AMPLITUDES = (30, 128, 200, 256, 300, 1000, 3000, 20_000)
RIGHT_DB = 60.0
ROWS, IMAGE = (2, 7, 64), (2, 32, 8, 8)
CHANNELS, GROUPS = IMAGE[1], 4

_RANDOM = np.random.default_rng(11)
WEIGHTS: dict[str, Array] = {
    "row": _RANDOM.uniform(0.5, 2, ROWS[-1]).astype(np.float16),
    "row_bias": _RANDOM.uniform(-1, 1, ROWS[-1]).astype(np.float16),
    "channel": _RANDOM.uniform(0.5, 2, CHANNELS).astype(np.float16),
    "channel_bias": _RANDOM.uniform(-1, 1, CHANNELS).astype(np.float16),
}
_SETTINGS = f"<groups = {GROUPS}, channels_last = 0, epsilon = 0.00001, activation = "
_GROUPED = (
    "r = Reshape(x, grouped) i = InstanceNormalization(r, ones, zeros) b = Reshape(i, back)"
    " f = Unsqueeze(channel, axes) m = Mul(b, f) s = Unsqueeze(channel_bias, axes) y = Add(m, s)"
)
NORMS = {
    "LayerNormalization": (ROWS, "y = LayerNormalization(x, row, row_bias)"),
    "SimplifiedLayerNormalization": (ROWS, "y = SimplifiedLayerNormalization(x, row)"),
    "GroupNorm": (IMAGE, f"y = com.microsoft.GroupNorm {_SETTINGS} 0> (x, channel, channel_bias)"),
    "GroupNorm with SiLU": (IMAGE, f"y = com.microsoft.GroupNorm {_SETTINGS} 1> (x, channel, channel_bias)"),
    "InstanceNormalization over groups": (
        IMAGE,
        _GROUPED,
    ),
}


def float32_graph(name: str) -> ir.Model:
    """A graph of one norm as it is before its precision is chosen."""
    shape, body = NORMS[name]
    sides = ", ".join(map(str, shape))
    constants = (
        f"int64[3] grouped = {{0, {GROUPS}, -1}}, int64[4] back = {{{', '.join(map(str, IMAGE))}}},"
        " int64[2] axes = {1, 2}, float[4] ones = {1, 1, 1, 1}, float[4] zeros = {0, 0, 0, 0}"
    )
    head = '<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>'
    proto = onnx.parser.parse_model(
        f"{head} g (float[{sides}] x) => (float[{sides}] y) <{constants}> {{ {body} }}"
    )
    for key, numbers in WEIGHTS.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(numbers.astype(np.float32), key))
    model = ir.from_proto(proto)
    for number, node in enumerate(model.graph):
        node.name = f"n{number}_{node.op_type}"
    for value in list(model.graph.initializers.values()):
        if not value.uses():
            del model.graph.initializers[str(value.name)]
    return model


def plain(name: str) -> ir.Model:
    model = float32_graph(name)
    to_fp16(model)
    return model


def kept(name: str) -> ir.Model:
    """The form that a package has where the norm's input deviates too far, or was not measured."""
    model = float32_graph(name)
    to_fp16(model, keep={entry.node for entry in find_norms(model)})
    return model


def with_float32_weights(name: str) -> ir.Model:
    """The norm on float16 values, with weights in float32 and no Cast before it."""
    model = plain(name)
    for value in list(model.graph.initializers.values()):
        if str(value.name).endswith("_float16"):
            original = str(value.name).removesuffix("_float16")
            wide = WEIGHTS[original].astype(np.float32)
            value.const_value, value.dtype = ir.tensor(wide, name=value.name), ir.DataType.FLOAT
    return model


def defined(name: str, x: Array) -> Array:
    """The norm in float64, from its definition."""
    values, epsilon = x.astype(np.float64), 1e-5
    if name == "SimplifiedLayerNormalization":
        return values / np.sqrt((values**2).mean(-1, keepdims=True) + epsilon) * WEIGHTS["row"]
    together = values if x.shape == ROWS else values.reshape(len(x), GROUPS, -1)
    spread = np.sqrt(together.var(-1, keepdims=True) + epsilon)
    normal = ((together - together.mean(-1, keepdims=True)) / spread).reshape(x.shape)
    if x.shape == ROWS:
        return normal * WEIGHTS["row"] + WEIGHTS["row_bias"]
    result = normal * WEIGHTS["channel"][:, None, None] + WEIGHTS["channel_bias"][:, None, None]
    return result / (1 + np.exp(-result)) if "SiLU" in name else result


def noise(shape: tuple[int, ...], amplitude: float) -> Array:
    x = np.random.default_rng(3).standard_normal(shape) * amplitude
    return np.clip(x, -65_000, 65_000).astype(np.float16)


class Norm:
    """One session; its answers, held against the definition."""

    def __init__(self, name: str, make: Callable[[str], ir.Model], folder: Path) -> None:
        self.name, self.shape = name, NORMS[name][0]
        proto = ir.to_proto(make(name)).SerializeToString()
        self.session = on_directml.open_session(proto, folder)

    def psnr_db(self, x: Array) -> float:
        (found,) = self.session.run(None, {"x": x})
        assert found.dtype == np.float16
        assert np.isfinite(found).all(), "a fault that shows is another fault"
        psnr_db: float = compare(found, defined(self.name, x).astype(np.float32)).psnr_db
        return psnr_db

    def by_amplitude(self) -> dict[int, float]:
        answers = {amplitude: self.psnr_db(noise(self.shape, amplitude)) for amplitude in AMPLITUDES}
        print(self.name, {amplitude: round(psnr_db, 1) for amplitude, psnr_db in answers.items()})  # noqa: T201
        return answers


@pytest.fixture(scope="module")
def norm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Norm]:
    @functools.cache
    def norm(name: str, make: Callable[[str], ir.Model] = plain) -> Norm:
        return Norm(name, make, tmp_path_factory.mktemp("norms"))

    return norm


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_that_is_kept_in_float32_is_right_at_every_amplitude(name: str, norm: Any) -> None:
    answers = norm(name, kept).by_amplitude()

    assert min(answers.values()) >= RIGHT_DB


@pytest.mark.parametrize("name", NORMS)
def test_a_kept_norm_is_wholly_on_directml(name: str, tmp_path: Path) -> None:
    answer = Norm(name, kept, tmp_path)

    on_directml.run(answer.session, {"x": noise(answer.shape, 1)})


@pytest.mark.parametrize("name", NORMS)
def test_a_float16_norm_is_wrong_without_a_sign_from_a_deviation_of_256(name: str, norm: Any) -> None:
    answers = norm(name).by_amplitude()

    assert min(answers[amplitude] for amplitude in (30, 128, 200)) >= RIGHT_DB
    assert answers[300] < 45
    assert answers[1000] < 20
    assert answers[3000] < answers[1000]
    assert answers[20_000] < answers[3000]


@pytest.mark.parametrize("name", NORMS)
def test_it_is_the_deviation_that_counts_and_not_the_largest_magnitude(name: str, norm: Any) -> None:
    """So a single large value, as text encoders have them, is no reason to keep a norm in float32."""
    answer = norm(name)
    single, everywhere = noise(answer.shape, 1), np.sign(noise(answer.shape, 1)) * np.float16(320)
    single.reshape(-1)[5] = 1000

    assert answer.psnr_db(single) >= RIGHT_DB
    assert answer.psnr_db(everywhere) < 45


@pytest.mark.parametrize("name", NORMS)
def test_up_to_the_deviation_that_is_trusted_a_float16_norm_is_right(name: str, norm: Any) -> None:
    answer = norm(name)
    trusted = np.sign(noise(answer.shape, 1)) * np.float16(LARGEST_DEVIATION / HEADROOM)

    assert answer.psnr_db(trusted) >= RIGHT_DB


def test_float32_weights_alone_do_not_help_group_norm(norm: Any) -> None:
    """Why the Casts stand around the norm."""
    group = norm("GroupNorm", with_float32_weights)

    assert group.psnr_db(noise(group.shape, 1000)) < 20

"""float8 with scales beside it, in both of ComfyUI's ways; what else is quantised is refused by name."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.scaled_tensors import unscaled
from conversions.errors import ConversionError
from conversions.weights.expression import Expression, ScaleRows, Stored


def stored(name: str, shape: tuple[int, ...], dtype: str = "F32") -> Stored:
    return Stored(tensor=StoredTensor(name=name, file="f", dtype=dtype, shape=shape, offset=0, size_bytes=4))


WHOLE = stored("m", (6, 10))
FLOAT8 = stored("w", (6, 10), "F8_E4M3")
ROWS = stored("s", (6, 1))
ONE = stored("s", ())


def test_notes_of_scaled_files_are_left_out() -> None:
    notes = (
        "scaled_fp8",
        "model.scaled_fp8",
        "b.weight_scale",
        "b.input_scale",
        "b.scale_input",
        "b.comfy_quant",
    )
    assert set(unscaled(dict.fromkeys(("a.weight", *notes), WHOLE))) == {"a.weight"}


def test_weights_without_scales_stay_as_they_are() -> None:
    tensors = {"a.weight": FLOAT8, "a.bias": WHOLE}
    assert unscaled(tensors) == tensors


@pytest.mark.parametrize("suffix", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("scale", [ONE, ROWS])
def test_float8_is_multiplied_by_the_scale_of_its_name(suffix: str, dtype: str, scale: Expression) -> None:
    weight = stored("w", (6, 10), dtype)
    tensors = {"x.weight": weight, "y.weight": FLOAT8, "z.weight": WHOLE, f"x.{suffix}": scale}
    assert unscaled({**tensors, f"z.{suffix}": ONE}) == {
        "x.weight": ScaleRows(of=weight, scales=scale),
        "y.weight": FLOAT8,
        "z.weight": WHOLE,
    }


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        *(
            ({"x.weight": WHOLE, f"x.weight{note}": WHOLE}, "bitsandbytes")
            for note in (".absmax", ".nested_absmax", ".quant_map", ".SCB", ".quant_state.bitsandbytes__nf4")
        ),
        *(
            (
                {"x.weight": stored("w", (6, 10), dtype), "x.weight_scale": ROWS},
                rf"x\.weight is stored as {dtype}",
            )
            for dtype in ("U8", "I8")
        ),
        ({"x.weight": FLOAT8, "x.weight_scale": stored("s", (3, 10))}, r"with scales \[3, 10\]"),
        ({"x.weight": FLOAT8, "x.weight_scale": stored("s", (2, 1))}, r"with scales \[2, 1\]"),
    ],
)
def test_other_quantised_forms_are_refused_by_name(tensors: Mapping[str, Expression], said: str) -> None:
    with pytest.raises(ConversionError, match=said) as caught:
        unscaled(tensors)
    assert caught.value.code == "weights.dtype"

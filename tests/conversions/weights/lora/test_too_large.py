"""Changes that make a weight infinite do so without numpy's warnings: it is refused where it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from conversions import convert, open_checkpoint
from conversions.checkpoint.element_types import Numbers
from conversions.errors import ConversionError
from conversions.options import Precision
from conversions.weights.expression import Expression, Read
from conversions.weights.lora.merge import AddDelta, Decomposed
from conversions.weights.lora.request import AdapterRequest
from conversions.weights.lora.with_adapters import with_adapters
from sdsetup.demo import checkpoint_path


@dataclass(frozen=True, kw_only=True)
class Given(Expression):
    """Numbers as they are."""

    numbers: Numbers

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    @property
    def dtype(self) -> str:
        return "F32"

    @property
    def operands(self) -> tuple[Expression, ...]:
        return ()

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:  # noqa: ARG002 - its signature
        return self.numbers.reshape(-1)[first : first + count]


ONES = Given(numbers=np.ones((2, 2), np.float32))
LARGE = Given(numbers=np.full((2, 2), 3e38, np.float32))


def read(*_: object) -> Numbers:
    raise AssertionError


def test_a_sum_that_is_too_large_is_infinite() -> None:
    for delta, factor in ((ONES, 1e39), (LARGE, 2.0), (ONES, -1e39)):
        found = AddDelta(base=ONES, delta=delta, factor=factor).evaluate(0, 4, read)
        assert np.isinf(found).all()


@pytest.mark.parametrize("along", ["rows", "columns"])
def test_so_is_a_change_of_lengths(along: Literal["rows", "columns"]) -> None:
    lengths = Given(numbers=np.ones(2, np.float32))
    found = Decomposed(
        base=ONES, delta=LARGE, factor=1e39, magnitude=lengths, scale=2.0, along=along
    ).evaluate(0, 4, read)
    assert not np.isfinite(found).any()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_what_is_not_finite_with_an_adapter_is_refused_by_name(precision: Precision, tmp_path: Path) -> None:
    with safe_open(checkpoint_path() / "unet" / "diffusion_pytorch_model.safetensors", "np") as file:
        name = next(name for name in file.keys() if name.endswith("attn1.to_q.weight"))  # noqa: SIM118
        outputs, inputs = file.get_tensor(name).shape
    module = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
    down, up = np.ones((4, inputs), np.float32), np.ones((outputs, 4), np.float32)
    path = tmp_path / "loud.safetensors"
    save_file({f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up}, path)
    loud = with_adapters(open_checkpoint(checkpoint_path()), [AdapterRequest(path=path, weight=3e38)])
    with pytest.raises(ConversionError, match=rf"With the adapters merged, .* unet: {name} ") as caught:
        convert(loud.checkpoint, tmp_path / "package", precision=precision, target="cpu", verify_on=None)
    assert caught.value.code == "lora.weight"
    assert not (tmp_path / "package").exists()

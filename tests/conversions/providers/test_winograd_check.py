from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from conversions.passes.winograd_convolution import LEAST_REUSE
from conversions.providers import device_answers, winograd_check
from conversions.providers.devices import CPU
from conversions.providers.winograd_check import Trial, is_faster, wins

SMALL = Trial(channels=2 * LEAST_REUSE, side=8, images=1, convolutions=2)
# Far more than anything here takes.
SLOW_SECONDS = 0.1
BOTH = [ir.DataType.FLOAT16, ir.DataType.FLOAT]

Change = Callable[[Any], Any]


class Session:
    """A real session on the CPU, slower than it is."""

    def __init__(self, model: bytes, *, slow: bool, change: Change = lambda output: output) -> None:
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.slow, self.change = slow, change

    def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
        if self.slow:
            time.sleep(SLOW_SECONDS)
        return [self.change(output) for output in self.session.run(names, feeds)]


def convolves(model: bytes) -> bool:
    return b"Conv" in model


@pytest.fixture(autouse=True)
def nothing_found_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cache" / "devices.json"
    monkeypatch.setattr(device_answers, "file", lambda: file)
    new_process(monkeypatch)
    return file


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_check, "_answers", {})


@pytest.mark.parametrize("dtype", BOTH)
def test_winograd_wins_where_convolutions_are_slow(dtype: ir.DataType) -> None:
    assert wins(dtype, lambda model: Session(model, slow=convolves(model)), SMALL)


@pytest.mark.parametrize("dtype", BOTH)
def test_convolutions_stay_where_they_are_fast(dtype: ir.DataType) -> None:
    assert not wins(dtype, lambda model: Session(model, slow=not convolves(model)), SMALL)


def test_a_gain_that_is_hardly_one_is_not_worth_the_memory() -> None:
    assert not wins(ir.DataType.FLOAT, lambda model: Session(model, slow=True), SMALL)


@pytest.mark.parametrize("dtype", BOTH)
def test_other_numbers_do_not_win(dtype: ir.DataType) -> None:
    def wrong(model: bytes) -> Session:
        slow = convolves(model)
        return Session(model, slow=slow, change=lambda output: output * (1 if slow else np.float16(1.1)))

    assert not wins(dtype, wrong, SMALL)


def test_not_a_number_does_not_win() -> None:
    def broken(model: bytes) -> Session:
        slow = convolves(model)
        return Session(model, slow=slow, change=lambda output: output if slow else output * np.nan)

    assert not wins(ir.DataType.FLOAT, broken, SMALL)


class Opener:
    """Opens sessions of a device that convolves slowly, and knows which."""

    def __init__(self, *, fails_for: bool | None = None) -> None:
        self.fails_for = fails_for
        self.opened: list[bool] = []

    def __call__(self, model: bytes) -> Session:
        self.opened.append(convolves(model))
        if convolves(model) is self.fails_for:
            raise RuntimeError("887A0005")
        return Session(model, slow=convolves(model))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_check.wins, "__defaults__", (SMALL,))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fails_for", [True, False])
def test_what_fails_is_not_faster_and_not_tried_again_today(
    *, fails_for: bool, monkeypatch: pytest.MonkeyPatch, nothing_found_yet: Path
) -> None:
    opener = Opener(fails_for=fails_for)
    for _ in range(2):
        for _ in range(2):
            assert not is_faster(ir.DataType.FLOAT, device=CPU, open_model=opener)
        new_process(monkeypatch)
    assert opener.opened == ([True] if fails_for else [True, False])
    (answer,) = json.loads(nothing_found_yet.read_text()).values()
    assert answer == {"answer": False, "until": str(date.today() + timedelta(days=1))}


@pytest.mark.usefixtures("small")
def test_while_one_process_times_another_does_not() -> None:
    seen = []

    def open_model(model: bytes) -> Session:
        seen.append(is_faster(ir.DataType.FLOAT, device=CPU, open_model=Opener()))
        return Session(model, slow=convolves(model))

    assert is_faster(ir.DataType.FLOAT, device=CPU, open_model=open_model)
    assert seen == [False, False]


@pytest.mark.usefixtures("small")
def test_what_was_found_is_kept_for_each_device_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    opener, other = Opener(), replace(CPU, name="another")
    for _ in range(2):
        for dtype in BOTH:
            assert is_faster(dtype, device=CPU, open_model=opener)
        new_process(monkeypatch)
    assert opener.opened == [True, False] * 2
    assert is_faster(ir.DataType.FLOAT, device=other, open_model=opener)
    assert opener.opened == [True, False] * 3


@pytest.mark.usefixtures("small")
def test_in_one_process_a_device_is_timed_once_although_nothing_can_be_written(
    nothing_found_yet: Path,
) -> None:
    nothing_found_yet.parent.write_text("a file in the way")
    opener = Opener()
    for _ in range(3):
        assert is_faster(ir.DataType.FLOAT, device=CPU, open_model=opener)
    assert opener.opened == [True, False]


def test_a_software_adapter_is_not_timed() -> None:
    opener = Opener()
    assert not is_faster(ir.DataType.FLOAT, device=replace(CPU, software=True), open_model=opener)
    assert not opener.opened


def test_a_trial_is_sixty_gigaflops() -> None:
    trial = winograd_check.STABLE_DIFFUSION
    pixels = trial.images * trial.side**2
    assert 2 * 9 * trial.channels**2 * pixels * trial.convolutions == pytest.approx(60e9, rel=0.01)


@pytest.mark.parametrize("dtype", BOTH)
def test_both_forms_of_the_trial_agree_and_only_one_convolves(dtype: ir.DataType) -> None:
    """At its own size, on the CPU: what a device is asked to compute is no easier than what it will run."""
    outputs = []

    def open_model(model: bytes) -> Session:
        def keep(output: Any) -> Any:
            outputs.append((convolves(model), output.astype(np.float64)))
            return output

        return Session(model, slow=False, change=keep)

    wins(dtype, open_model, Trial(convolutions=1))
    (was_convolution, expected), (is_convolution, got) = outputs[0], outputs[-1]
    assert was_convolution and not is_convolution
    assert expected.shape == (2, 640, 8, 8)
    # The variance of inputs is kept, so that float16 has room.
    assert 0.5 < expected.std() < 2
    np.testing.assert_allclose(got, expected, atol=0.02 if dtype == ir.DataType.FLOAT16 else 1e-4)

"""Two runners as one: which of them does what. They record what they are asked; none runs a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from conversions.verification.ep_assignment import Placement
from sdsetup.errors import SetupError
from sdsetup.runtime.runner import Usage
from sdsetup.runtime.runner_pair import RunnerPair
from sdsetup.runtime.sessions import OUT_OF_MEMORY, OutOfMemoryError


@dataclass
class Recorder:
    """A runner that writes down what it is asked."""

    device: Any
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    fails: bool = False
    raises: list[Exception] = field(default_factory=list)

    def run(self, submodel: str, inputs: Any) -> dict[str, Any]:
        self.asked.append(("run", submodel, inputs))
        if self.raises:
            raise self.raises.pop()
        return {self.device: np.ones(1)}

    def begin(self) -> None:
        self.asked.append(("begin",))

    def opens_ahead(self, submodel: str) -> bool:
        return self.device == "main" and submodel == "unet"

    def open_ahead(self, submodel: str, sizes: Any) -> None:
        self.asked.append(("ahead", submodel, sizes))

    def upcast_to_fp32(self, submodel: str) -> None:
        self.asked.append(("upcast", submodel))

    def skip_layers(self, submodel: str, count: int) -> None:
        self.asked.append(("skip", submodel, count))

    def done_with(self, submodel: str) -> None:
        self.asked.append(("done", submodel))

    def usage(self) -> dict[str, Usage]:
        names = ("unet", "both") if self.device == "main" else ("text_encoder", "both")
        return {
            name: Usage(placement=Placement(provider=self.device, nodes={}), load_seconds=())
            for name in names
        }

    def close(self) -> None:
        self.asked.append(("close",))
        if self.fails:
            raise RuntimeError("the device is gone")


@pytest.fixture
def two() -> RunnerPair:
    return RunnerPair(
        main=Recorder("main"),
        other=Recorder("other"),
        elsewhere=frozenset({"text_encoder", "text_encoder_2"}),
    )


def test_each_submodel_runs_where_it_belongs(two: Any) -> None:
    inputs = {"x": np.ones(1)}
    assert two.device == "main"
    assert two.run("text_encoder_2", inputs).keys() == {"other"}
    assert two.run("unet", inputs).keys() == {"main"}
    assert two.run("vae_decoder", inputs).keys() == {"main"}
    assert two.main.asked == [("run", "unet", inputs), ("run", "vae_decoder", inputs)]
    assert two.other.asked == [("run", "text_encoder_2", inputs)]


def test_what_is_said_of_a_submodel_reaches_its_runner(two: Any) -> None:
    two.begin()
    assert two.main.asked.pop() == two.other.asked.pop() == ("begin",)
    assert two.opens_ahead("unet")
    assert not two.opens_ahead("text_encoder")
    for name in ("unet", "text_encoder"):
        two.open_ahead(name, {"batch": 2})
        two.upcast_to_fp32(name)
        two.skip_layers(name, 2)
        two.done_with(name)
    assert two.main.asked == [
        ("ahead", "unet", {"batch": 2}),
        ("upcast", "unet"),
        ("skip", "unet", 2),
        ("done", "unet"),
    ]
    assert two.other.asked == [
        ("ahead", "text_encoder", {"batch": 2}),
        ("upcast", "text_encoder"),
        ("skip", "text_encoder", 2),
        ("done", "text_encoder"),
    ]


def test_both_are_counted_and_closed_even_where_one_fails(two: Any) -> None:
    providers = {name: usage.placement.provider for name, usage in two.usage().items()}
    assert providers == {"text_encoder": "other", "unet": "main", "both": "main"}
    two.main.fails = True
    with pytest.raises(RuntimeError, match="gone"):
        two.close()
    assert two.main.asked == two.other.asked == [("close",)]


def test_where_memory_runs_out_the_other_on_the_device_gives_its_own_back(two: Any) -> None:
    full = OutOfMemoryError(OUT_OF_MEMORY, "It is full.", "Use less.")
    two.main.raises.append(full)
    with pytest.raises(SetupError, match="full"):
        two.run("unet", {})
    assert not two.other.asked
    two.other.device = two.main.device
    for runner, rest, name in ((two.main, two.other, "unet"), (two.other, two.main, "text_encoder")):
        runner.asked.clear()
        rest.asked.clear()
        runner.raises.append(full)
        assert two.run(name, {}).keys() == {runner.device}
        assert runner.asked == [("run", name, {})] * 2
        assert rest.asked == [("close",)]
        runner.raises.extend([full, full])
        with pytest.raises(SetupError, match="full"):
            two.run(name, {})
        runner.raises.append(SetupError("runtime.failed", "It broke.", "Look."))
        rest.asked.clear()
        with pytest.raises(SetupError, match="broke"):
            two.run(name, {})
        assert not rest.asked

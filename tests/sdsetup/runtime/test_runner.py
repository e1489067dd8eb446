"""Which submodels are open, how often they were opened, and what a runner does when one fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions.events import Finished, Started
from conversions.package.layout import Package
from conversions.providers.table import FIXED_SIZES, provider_for
from conversions.verification.ep_assignment import Placement
from sdsetup.runtime import runner as module
from sdsetup.runtime.devices import Device
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner, Usage
from sdsetup.runtime.sessions import OutOfMemoryError, ReplayError
from tests.sdsetup import toy_package

CPU = Device(provider=provider_for("cpu"), name="CPU")
TOKENS = {"input_ids": np.zeros((1, 77), np.int32)}
LATENTS = {"latent_sample": np.ones((1, 4, 2, 3), np.float32)}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return open_for_images(toy_package.write(tmp_path_factory.mktemp("runner") / "package", precision="fp16"))


def loads(runner: LocalRunner) -> dict[str, int]:
    return {name: len(used.load_seconds) for name, used in runner.usage().items()}


def runs(runner: LocalRunner) -> dict[str, int]:
    return {name: len(used.run_seconds) for name, used in runner.usage().items()}


def test_a_submodel_is_opened_once_and_every_run_is_noted(package: Package) -> None:
    events: list[Any] = []
    runner = LocalRunner(package=package, device=CPU, listener=events.append)
    assert runner.usage() == {}
    outputs = runner.run("vae_decoder", LATENTS)
    assert outputs["sample"].shape == (1, 3, 16, 24)
    assert outputs["sample"].dtype == np.float32
    runner.run("vae_decoder", LATENTS)
    runner.run("text_encoder", TOKENS)
    assert loads(runner) == {"vae_decoder": 1, "text_encoder": 1}
    assert runs(runner) == {"vae_decoder": 2, "text_encoder": 1}
    used = runner.usage()["vae_decoder"]
    assert all(seconds > 0 for seconds in (*used.load_seconds, *used.run_seconds))
    nodes, share = sum(used.placement.nodes.values()), used.placement.node_share
    assert share == 1 or not nodes  # older versions do not tell where nodes are
    assert not used.upcast
    assert events[:2] == [
        Started(task="load-vae_decoder", label="vae_decoder: loading", total=None),
        Finished(task="load-vae_decoder", note=f"{share:.0%} of {nodes} nodes on {CPU.provider.label}"),
    ]
    assert len(events) == 4


def test_usage_begins_without_runs_and_in_the_precision_of_the_package() -> None:
    begun = Usage(placement=Placement(provider="A", nodes={}), load_seconds=(1.0,))
    assert (begun.run_seconds, begun.upcast) == ((), False)


def test_a_stage_that_is_over_is_closed_only_where_memory_is_short(package: Package) -> None:
    for low_memory in (False, True):
        runner = LocalRunner(package=package, device=CPU, low_memory=low_memory)
        for _ in range(2):
            runner.run("vae_decoder", LATENTS)
            runner.done_with("vae_decoder")
        runner.done_with("unet")  # which was never open
        assert loads(runner) == {"vae_decoder": 1 + low_memory}
        assert runs(runner) == {"vae_decoder": 2}


def test_closing_frees_all_and_keeps_the_numbers(package: Package) -> None:
    runner = LocalRunner(package=package, device=CPU)
    runner.run("vae_decoder", LATENTS)
    runner.close()
    assert runs(runner) == {"vae_decoder": 1}
    runner.run("vae_decoder", LATENTS)
    assert loads(runner) == {"vae_decoder": 2}


def test_a_submodel_in_float32_is_opened_again_from_the_same_weights(package: Package) -> None:
    runner = LocalRunner(package=package, device=CPU)
    half = runner.run("vae_decoder", LATENTS)["sample"]
    runner.run("text_encoder", TOKENS)
    runner.upcast_to_fp32("vae_decoder")
    whole = runner.run("vae_decoder", LATENTS)["sample"]
    runner.run("vae_decoder", LATENTS)
    runner.run("text_encoder", TOKENS)
    assert loads(runner) == {"vae_decoder": 2, "text_encoder": 1}
    assert runs(runner) == {"vae_decoder": 3, "text_encoder": 2}
    assert [used.upcast for used in runner.usage().values()] == [True, False]
    assert runner.upcast == {"vae_decoder"}
    np.testing.assert_allclose(half, whole, atol=0.01)
    assert not np.array_equal(half, whole)


def test_layers_are_skipped_from_the_next_run_on(package: Package) -> None:
    runner = LocalRunner(package=package, device=CPU)
    runner.run("vae_decoder", LATENTS)
    runner.skip_layers("vae_decoder", 0)
    runner.run("vae_decoder", LATENTS)
    assert loads(runner) == {"vae_decoder": 1}
    runner.skip_layers("vae_decoder", 2)  # which has none that could be left out
    runner.skip_layers("vae_decoder", 2)
    runner.skip_layers("text_encoder", 1)
    runner.run("vae_decoder", LATENTS)
    runner.skip_layers("vae_decoder", 2)
    runner.run("vae_decoder", LATENTS)
    assert loads(runner) == {"vae_decoder": 2}
    assert runner.skipped == {"vae_decoder": 2, "text_encoder": 1}


def test_only_text_encoders_leave_layers_out(package: Package) -> None:
    runner = LocalRunner(package=package, device=CPU, skipped={"vae_decoder": 1, "text_encoder": 1})
    assert runner._edits("vae_decoder") == ()
    (edit,) = runner._edits("text_encoder")
    assert edit.keywords == {"count": 1}  # type: ignore[attr-defined]
    runner.skip_layers("text_encoder", 0)
    assert runner._edits("text_encoder") == ()


def test_sessions_of_one_size_are_opened_again_for_another(package: Package) -> None:
    fixed = replace(CPU, provider=replace(CPU.provider, sizes=FIXED_SIZES))
    larger = {"latent_sample": np.ones((2, 4, 2, 3), np.float32)}
    for device, opened in ((fixed, [1, 1, 2, 2, 3]), (CPU, [1, 1, 1, 1, 1])):
        runner = LocalRunner(package=package, device=device)
        counts = []
        for inputs in (LATENTS, LATENTS, larger, larger, LATENTS):
            rows = len(inputs["latent_sample"])
            assert runner.run("vae_decoder", inputs)["sample"].shape == (rows, 3, 16, 24)
            counts.append(loads(runner)["vae_decoder"])
        assert counts == opened


class Failing:
    """Stands before a function and fails the first times."""

    def __init__(self, function: Any, *errors: Exception) -> None:
        self._function, self._errors, self.calls = function, list(errors), []

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls.append(options)
        if self._errors:
            raise self._errors.pop(0)
        return self._function(*arguments, **options)


def full() -> OutOfMemoryError:
    return OutOfMemoryError("device.memory", "full", "smaller")


def test_memory_that_runs_out_closes_the_others_and_tries_once_more(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = LocalRunner(package=package, device=CPU)
    runner.run("text_encoder", TOKENS)
    monkeypatch.setattr(module.sessions, "run", Failing(module.sessions.run, full()))
    assert runner.run("vae_decoder", LATENTS)["sample"].shape == (1, 3, 16, 24)
    assert runner.low_memory
    assert set(runner._open) == {"vae_decoder"}
    assert loads(runner) == {"text_encoder": 1, "vae_decoder": 2}

    monkeypatch.setattr(module.sessions, "run", Failing(module.sessions.run, full()))
    with pytest.raises(OutOfMemoryError):  # nothing else is open
        runner.run("vae_decoder", LATENTS)
    runner.run("text_encoder", TOKENS)
    monkeypatch.setattr(module.sessions, "run", Failing(module.sessions.run, full(), full()))
    with pytest.raises(OutOfMemoryError):
        runner.run("vae_decoder", LATENTS)


def test_launches_that_cannot_be_recorded_are_not_recorded_again(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = LocalRunner(package=package, device=CPU)
    load = Failing(module.sessions.load)
    monkeypatch.setattr(module.sessions, "load", load)
    monkeypatch.setattr(module.sessions, "run", Failing(module.sessions.run, ReplayError("no graph")))
    runner.run("vae_decoder", LATENTS)
    runner.close()
    runner.run("vae_decoder", LATENTS)
    runner.run("text_encoder", TOKENS)
    assert [call["replayed"] for call in load.calls] == [True, False, False, True]
    assert runs(runner) == {"vae_decoder": 2, "text_encoder": 1}


def test_float32_is_exact_in_packages_of_it_alone(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_for_images(toy_package.write(tmp_path / "whole"))
    for opened, exact in ((package, False), (whole, True)):
        load = Failing(module.sessions.load)
        with monkeypatch.context() as patched:
            patched.setattr(module.sessions, "load", load)
            LocalRunner(package=opened, device=CPU).run("vae_decoder", LATENTS)
        assert [call["exact"] for call in load.calls] == [exact]
        assert [call["upcast"] for call in load.calls] == [False]

"""What is loaded together within a device's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conversions.events import Notice
from conversions.forecast import CONTEXT_BYTES, SESSION_BYTES, forecast, weights_bytes
from conversions.package.layout import Package
from conversions.pipeline_graphs import package_graphs
from conversions.providers.devices import CPU, Device
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from sdsetup.disk_space import human_size
from sdsetup.errors import SetupError
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime import memory_plan, start
from sdsetup.runtime.memory_plan import MemoryPlan, Use
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.runner_pair import RunnerPair
from tests.sdsetup import toy_package

LARGE = 64 * 2**30


def make_plan(
    package: Package, size: ImageSize, budget_bytes: int | None, *others: Package, **options: Any
) -> MemoryPlan:
    uses = [Use(package=each) for each in (package, *others)]
    return memory_plan.make_plan(uses, size, budget_bytes, **{"provider": CPU.provider, **options})


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return open_for_images(toy_package.write(tmp_path_factory.mktemp("packages") / "plain"))


def test_a_device_of_unknown_or_ample_memory_holds_all(package: Package) -> None:
    native = package.recipe.native
    assert make_plan(package, native, None) == MemoryPlan()
    assert make_plan(package, native, LARGE) == MemoryPlan()
    assert make_plan(package, native, LARGE, one_at_a_time=True) == MemoryPlan(one_at_a_time=True)


def test_weights_count_to_the_byte(package: Package) -> None:
    native = package.recipe.native
    models = package_graphs(package).models.values()
    images = int(CPU.provider.activation_factor * 8192 * native.width * native.height * native.images)
    room = CONTEXT_BYTES + sum(weights_bytes(model) + SESSION_BYTES for model in models) + images
    assert make_plan(package, native, room).peak_bytes is None
    assert make_plan(package, native, room - 1).peak_bytes is not None


def test_what_does_not_fit_together_is_loaded_one_at_a_time(package: Package) -> None:
    needed = forecast(package_graphs(package), package.recipe.native)
    assert needed.staged_bytes < needed.device_bytes
    together = make_plan(package, package.recipe.native, needed.device_bytes)
    assert together == MemoryPlan(peak_bytes=needed.device_bytes)
    staged = make_plan(package, package.recipe.native, needed.device_bytes - 1)
    assert staged == MemoryPlan(one_at_a_time=True, peak_bytes=needed.staged_bytes)
    memory_plan.demand(staged, needed.staged_bytes)


def test_larger_images_need_more_than_the_same_budget(package: Package) -> None:
    budget = forecast(package_graphs(package), package.recipe.native).staged_bytes
    with pytest.raises(SetupError, match="may be used") as caught:
        memory_plan.demand(make_plan(package, ImageSize(width=2048, height=2048), budget), budget)
    assert caught.value.code == "device.budget"
    assert "--width" in caught.value.hint


def test_encoders_that_are_too_large_run_elsewhere_and_are_not_counted(package: Package) -> None:
    encoders = frozenset(package.with_role("text"))
    everything = forecast(package_graphs(package), package.recipe.native)
    budget = everything.without(encoders).device_bytes
    assert budget < everything.device_bytes
    moved = make_plan(package, package.recipe.native, budget, encoders_elsewhere=True)
    assert moved == MemoryPlan(elsewhere=encoders, peak_bytes=budget)
    assert make_plan(package, package.recipe.native, 1).elsewhere == encoders
    assert not make_plan(package, package.recipe.native, 1, encoders_elsewhere=False).elsewhere


def test_a_refiner_shares_the_budget(package: Package) -> None:
    native = package.recipe.native
    alone = forecast(package_graphs(package), native)
    both = 2 * alone.device_bytes - CONTEXT_BYTES
    assert make_plan(package, native, both, package) == MemoryPlan(peak_bytes=both)
    # Each fits by itself with everything loaded, and both do not.
    assert not make_plan(package, native, both - 1).one_at_a_time
    staged = make_plan(package, native, both - 1, package)
    assert staged == MemoryPlan(one_at_a_time=True, peak_bytes=alone.staged_bytes)
    assert make_plan(package, native, None, package) == make_plan(package, native, LARGE, package)


def test_packages_in_processes_of_their_own_take_a_context_each(package: Package) -> None:
    native, directml = package.recipe.native, provider_for("directml")
    alone = forecast(package_graphs(package).run_by(directml), native)
    staged = alone.staged_bytes + CONTEXT_BYTES
    plan = make_plan(package, native, staged, package, provider=directml, encoders_elsewhere=False)
    assert (plan.one_at_a_time, plan.side_by_side, plan.peak_bytes) == (True, False, staged)
    memory_plan.demand(plan, staged)
    both = 2 * alone.device_bytes
    plan = make_plan(package, native, both, package, provider=directml)
    assert (plan.one_at_a_time, plan.side_by_side, plan.peak_bytes) == (False, False, both)
    four = both + 2 * CONTEXT_BYTES
    plan = make_plan(package, native, four, package, provider=directml)
    assert (plan.side_by_side, plan.peak_bytes) == (True, four)


def test_a_budget_that_is_too_small_is_told_what_each_way_takes(package: Package) -> None:
    needed = forecast(package_graphs(package), package.recipe.native)
    budget = needed.staged_bytes - 1
    plan = make_plan(package, package.recipe.native, budget, encoders_elsewhere=False)
    with pytest.raises(SetupError) as caught:
        memory_plan.demand(plan, budget)
    largest = max(needed.needs, key=lambda need: need.total_bytes).submodel
    together, staged = human_size(needed.device_bytes), human_size(needed.staged_bytes)
    assert f"all submodels together {together}, one at a time {staged} ({largest})" in caught.value.message


def test_a_pair_of_runners_makes_the_image_of_one(package: Package) -> None:
    request = Request(prompt="a red horse", seed=3, steps=3)
    expected = Pipeline(package=package, runner=LocalRunner(package=package, device=CPU)).generate(request)
    encoders = frozenset(package.with_role("text"))
    main, other = (LocalRunner(package=package, device=CPU) for _ in range(2))
    both = RunnerPair(main=main, other=other, elsewhere=encoders)
    images = Pipeline(package=package, runner=both).generate(request)
    assert np.array_equal(images.pixels, expected.pixels)
    assert set(other.usage()) == encoders
    assert not set(main.usage()) & encoders
    assert set(both.usage()) == set(main.usage()) | encoders


def test_what_was_planned_is_said(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Device(
        provider=provider_for("directml"), name="Small card", discrete=True, memory_bytes=300 * 2**20
    )
    monkeypatch.setattr(start, "list_devices", lambda: [small, CPU])
    heard: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Notice):
            heard.append(event.text)

    begin = start.DeviceRequest(encoder_provider="cpu")
    runner = start.start(package, begin, package.recipe.native, listen)
    assert isinstance(runner, RunnerPair)
    assert runner.device == small
    assert not runner.device.winograd
    assert "text_encoder on" in heard[0]
    assert "one submodel at a time" in heard[0]
    with pytest.raises(SetupError, match="may be used"):
        start.start(package, start.DeviceRequest(vram_bytes=2**20), package.recipe.native, listen)


def test_a_budget_of_a_gpu_is_said_to_mean_nothing_on_the_cpu(package: Package) -> None:
    heard: list[str] = []
    begin = start.DeviceRequest(provider="cpu", vram_bytes=2**20)
    start.start(
        package, begin, package.recipe.native, lambda event: heard.append(getattr(event, "text", ""))
    ).close()
    assert any("--vram" in text for text in heard)

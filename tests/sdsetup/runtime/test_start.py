"""Which device is started, what is said of it, and what a run reports at its end."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from conversions.events import Notice
from conversions.package.layout import Package
from conversions.providers.devices import CPU, Device
from conversions.providers.table import Provider, provider_for
from conversions.recipe import ImageSize
from conversions.verification.ep_assignment import Placement
from sdsetup.disk_space import human_size
from sdsetup.errors import SetupError
from sdsetup.runtime import start as module
from sdsetup.runtime.memory_plan import MemoryPlan
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner, Runner, Usage
from sdsetup.runtime.runner_pair import RunnerPair
from sdsetup.runtime.start import DeviceRequest, as_document, start, summary, time_share
from sdsetup.runtime.worker import WorkerRunner
from tests.sdsetup import toy_package

GPU = Device(provider=provider_for("directml"), name="Radeon", discrete=True, memory_bytes=8 * 2**30)
SMALL = replace(GPU, name="Small card", number=1, memory_bytes=300 * 2**20)
HUGE = ImageSize(width=2**20, height=2**20)
INTEGRATED = replace(GPU, name="Graphics", discrete=False, memory_bytes=2**28)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return open_for_images(toy_package.write(tmp_path_factory.mktemp("packages") / "plain"))


def started(
    package: Package, monkeypatch: pytest.MonkeyPatch, devices: list[Device], **request: Any
) -> tuple[Runner, list[str]]:
    monkeypatch.setattr(module, "list_devices", lambda: [*devices, CPU])
    heard: list[str] = []

    def listen(event: object) -> None:
        assert isinstance(event, Notice)
        heard.append(event.text)

    runner = start(package, DeviceRequest(**request), package.recipe.native, listen)
    runner.close()
    return runner, heard


def test_the_cpu_is_taken_where_there_is_nothing_else(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, heard = started(package, monkeypatch, [])
    assert isinstance(runner, LocalRunner)
    assert not runner.low_memory
    assert heard == [f"running on {CPU}."]  # the package was made for it
    for_gpus = replace(package, manifest={**package.manifest, "target": "directml"})
    _, heard = started(for_gpus, monkeypatch, [])
    assert heard[1:] == ["no GPU that ONNX Runtime can use was found; sdsetup doctor says why."]
    for request in ({"provider": "cpu"}, {"device_id": 0}, {"adapter": CPU.name}):
        _, heard = started(for_gpus, monkeypatch, [], **request)
        assert len(heard) == 1


def test_images_that_no_main_memory_holds_are_announced(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(module, "list_devices", lambda: [CPU])
    for size, announced in ((ImageSize(width=1024, height=2048), False), (HUGE, True)):
        start(
            package,
            DeviceRequest(),
            size,
            lambda event: heard.append(event.text),  # type: ignore[attr-defined]
        ).close()
        assert heard[0] == f"running on {CPU}."
        assert len(heard) == (3 if announced else 1)
        if announced:
            assert heard[1].startswith("vae_decoder runs in one piece: Resize")
            assert heard[2].startswith("the images need about ")
            assert heard[2].endswith(
                f"and this machine has {human_size(psutil.virtual_memory().total)}: it may run out."
            )
        heard.clear()


def test_a_gpu_runs_in_a_process_of_its_own_with_everything_loaded(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, heard = started(package, monkeypatch, [GPU])
    assert isinstance(runner, RunnerPair)
    assert runner.elsewhere == {each.name for each in package.submodels} - {"unet"}
    for worker in (runner.main, runner.other):
        assert isinstance(worker, WorkerRunner)
        assert (worker.device, worker.low_memory) == (GPU, False)
    assert heard == [f"running on {GPU}."]
    second, _ = started(package, monkeypatch, [GPU, SMALL], device_id=1, provider="directml")
    assert second.device == SMALL
    named, _ = started(package, monkeypatch, [GPU, SMALL], adapter="small")
    assert named.device == SMALL


def test_the_denoiser_is_opened_beside_the_others_where_main_memory_allows(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {
        each.name: sum(path.stat().st_size for path in package.graph(each.name).parent.iterdir())
        for each in package.submodels
    }
    needed = 2 * (sizes.pop("unet") + max(sizes.values()))
    for missing, kind in ((0, RunnerPair), (1, WorkerRunner)):
        memory = SimpleNamespace(available=needed - missing, total=2**40)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        assert isinstance(started(package, monkeypatch, [GPU])[0], kind)


def test_memory_decides_what_is_loaded_together_unless_a_person_does(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    for devices, request, one_at_a_time in (
        ([INTEGRATED], {}, True),
        ([INTEGRATED], {"low_vram": False}, False),
        ([GPU], {"low_vram": True}, True),
        ([], {"low_vram": True}, True),
    ):
        runner, heard = started(package, monkeypatch, devices, **request)
        assert isinstance(runner, RunnerPair) is not one_at_a_time
        # Winograd takes more memory.
        assert runner.device.winograd is not one_at_a_time
        if not isinstance(runner, RunnerPair):
            assert runner.low_memory  # type: ignore[attr-defined]
        assert heard[0].endswith(", one submodel at a time." if one_at_a_time else f"{runner.device}.")


def test_images_that_may_not_fit_are_announced_and_beyond_a_budget_refused(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = replace(GPU, memory_bytes=2**20)
    _, heard = started(package, monkeypatch, [tiny])
    assert heard[-1].startswith("the images need about ")
    assert heard[-1].endswith(f"of memory, and {tiny} has 1.0 MiB: it may run out.")
    with pytest.raises(SetupError, match="may be used") as caught:
        started(package, monkeypatch, [GPU], vram_bytes=2**20)
    assert caught.value.code == "device.budget"
    _, heard = started(package, monkeypatch, [tiny], vram_bytes=8 * 2**30)
    assert len(heard) == 1
    _, heard = started(package, monkeypatch, [GPU], provider="cpu", vram_bytes=2**20)
    assert heard[1:] == ["--vram means a GPU's memory, and the images are made on the CPU."]


@pytest.mark.parametrize(
    ("request_fields", "restricted", "winograd"),
    [
        ({}, {}, True),
        ({}, {"one_at_a_time": True}, False),
        ({}, {"tiles": {"vae_decoder": 256}}, False),
        ({"vae_tiling": True}, {"tiles": {"vae_decoder": 256}}, True),
        ({}, {"peak_bytes": 9 * 2**30}, False),
        ({"vram_bytes": 2**30, "low_vram": False, "vae_tiling": False}, {"peak_bytes": 2 * 2**30}, False),
    ],
)
def test_winograd_is_left_out_where_it_makes_memory_short(
    package: Package,
    monkeypatch: pytest.MonkeyPatch,
    request_fields: dict[str, Any],
    restricted: dict[str, Any],
    winograd: bool,
) -> None:
    def make_plan(*_: Any, provider: Provider, **__: Any) -> MemoryPlan:
        return MemoryPlan(**restricted) if provider.winograd is not None else MemoryPlan(peak_bytes=2**20)

    monkeypatch.setattr(module.memory_plan, "make_plan", make_plan)
    runner, heard = started(package, monkeypatch, [GPU], **request_fields)
    assert runner.device == GPU
    assert runner.device.winograd is winograd
    assert heard[0].endswith("in tiles of 256x256." if winograd and restricted else f"{GPU}.")


def test_text_encoders_run_where_a_person_says(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, heard = started(package, monkeypatch, [GPU], encoder_provider="cpu")
    assert isinstance(runner, RunnerPair)
    assert runner.elsewhere == {"text_encoder"}
    assert (runner.main.device, runner.other.device) == (GPU, CPU)
    assert heard == [f"running on {GPU}, text_encoder on {CPU}."]
    same, _ = started(package, monkeypatch, [GPU], encoder_provider="directml")
    assert isinstance(same, RunnerPair)
    assert same.other.device == GPU
    cpu, _ = started(package, monkeypatch, [GPU], provider="cpu", encoder_provider="cpu")
    assert isinstance(cpu, LocalRunner)


def usage(provider: str, seconds: float, *, upcast: bool = False, **nodes: int) -> Usage:
    return Usage(
        placement=Placement(provider=provider, nodes=nodes),
        load_seconds=(1.0, 2.0),
        run_seconds=(seconds, seconds),
        upcast=upcast,
    )


class Ended:
    """A runner whose work is done."""

    device = replace(GPU, number=3)

    def __init__(self, **used: Usage) -> None:
        self._used = used

    def usage(self) -> dict[str, Usage]:
        return self._used


def test_a_summary_names_the_device_and_what_was_run_in_float32() -> None:
    plain: Any = Ended(unet=usage("A", 1.0, A=4))
    assert summary(plain) == f"{plain.device} ran 100.0% of 4 nodes, 100.0% of the time"
    retried: Any = Ended(
        unet=usage("A", 1.0, upcast=True, A=4),
        vae=usage("A", 1.0, A=4),
        text=usage("A", 1.0, upcast=True, A=4),
    )
    assert summary(retried).endswith(", unet and text in float32 after float16 failed")
    assert time_share(plain.usage()) == 1.0


def test_a_document_has_the_numbers_of_every_submodel() -> None:
    runner: Any = Ended(unet=usage("A", 1.5, upcast=True, A=3, B=1))
    assert as_document(runner) == {
        "provider": "DmlExecutionProvider",
        "device": "Radeon",
        "device_id": 3,
        "device_memory_bytes": 8 * 2**30,
        "time_share": None,
        "submodels": {
            "unet": {
                "nodes": {"A": 3, "B": 1},
                "node_share": 0.75,
                "time_share": None,
                "load_seconds": 3.0,
                "run_seconds": 3.0,
                "runs": 2,
                "retried_in_fp32": True,
            }
        },
    }


class Noting:
    """A runner that notes what it is asked for."""

    def __init__(self, name: str, device: Device, used: dict[str, Usage]) -> None:
        self.name, self.device, self._used = name, device, used
        self.asked: list[tuple[Any, ...]] = []

    def usage(self) -> dict[str, Usage]:
        return self._used

    def __getattr__(self, verb: str) -> Any:
        def note(*arguments: Any) -> str:
            self.asked.append((verb, *arguments))
            return self.name

        return note


def test_each_runner_of_a_pair_is_asked_for_its_own_submodels() -> None:
    numbers = usage("A", 1.0, A=1)
    main: Any = Noting("main", GPU, {"unet": numbers})
    other: Any = Noting("other", CPU, {"text": numbers, "unet": replace(numbers, upcast=True)})
    both = RunnerPair(main=main, other=other, elsewhere=frozenset({"text"}))
    inputs = {"x": np.zeros(1)}
    assert both.device == GPU
    assert both.run("unet", inputs) == "main"  # type: ignore[comparison-overlap]
    assert both.run("text", inputs) == "other"  # type: ignore[comparison-overlap]
    for verb in ("upcast_to_fp32", "done_with"):
        getattr(both, verb)("text")
        getattr(both, verb)("unet")
    both.skip_layers("text", 2)
    assert both.usage() == {"text": numbers, "unet": numbers}
    both.close()
    assert main.asked == [
        ("run", "unet", inputs),
        ("upcast_to_fp32", "unet"),
        ("done_with", "unet"),
        ("close",),
    ]
    assert other.asked == [
        ("run", "text", inputs),
        ("upcast_to_fp32", "text"),
        ("done_with", "text"),
        ("skip_layers", "text", 2),
        ("close",),
    ]

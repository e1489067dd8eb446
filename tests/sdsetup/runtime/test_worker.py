"""The worker process on the CPU provider: real processes, killed for real."""

import multiprocessing
import os
import pickle
import signal
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
import pytest

from conversions.events import Advanced, Finished, Notice
from conversions.providers.table import FIXED_SIZES
from sdsetup.errors import SetupError
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.runner_pair import RunnerPair
from sdsetup.runtime.sessions import DeviceLostError
from sdsetup.runtime.worker import WorkerRunner, _Failure, make_runner
from tests.sdsetup import toy_package
from tests.sdsetup.imaging.test_float32_retry import write as write_loud
from tests.sdsetup.imaging.test_pipeline import cpu

REQUEST = Request(prompt="a red horse", seed=3, steps=6)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return open_for_images(toy_package.write(tmp_path_factory.mktemp("packages") / "toy_package"))


@pytest.fixture
def worker(package):
    runner = WorkerRunner(package=package, device=cpu())
    yield runner
    runner.close()


def kill(process_id):
    os.kill(process_id, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


def test_a_worker_makes_the_same_image_as_this_process(package, worker):
    local = LocalRunner(package=package, device=cpu())
    expected = Pipeline(package=package, runner=local).generate(REQUEST)
    made = Pipeline(package=package, runner=worker).generate(REQUEST)
    assert np.array_equal(made.pixels, expected.pixels)
    assert worker.process_id != os.getpid()
    assert {name: len(used.run_seconds) for name, used in worker.usage().items()} == {
        name: len(used.run_seconds) for name, used in local.usage().items()
    }


def test_a_worker_that_is_killed_in_the_middle_costs_one_run_and_no_image(package, worker):
    expected = Pipeline(package=package, runner=LocalRunner(package=package, device=cpu())).generate(REQUEST)
    notices = []

    def kill_at_step_three(event):
        if isinstance(event, Advanced) and event.done == 3:
            kill(worker.process_id)
        if isinstance(event, Notice):
            notices.append(event.text)

    worker.listener = kill_at_step_three
    made = Pipeline(package=package, runner=worker, listener=kill_at_step_three).generate(REQUEST)
    assert np.array_equal(made.pixels, expected.pixels)
    assert len(notices) == 1
    assert "running unet again in a new process" in notices[0]


def test_a_worker_that_dies_every_time_ends_in_one_clear_message(package, worker):
    loaded, notices = [], []

    def kill_while_loading(event):
        if isinstance(event, Finished) and event.task == "load-unet":
            loaded.append(event)
            kill(worker.process_id)
        if isinstance(event, Notice):
            notices.append(event.text)

    worker.listener = kill_while_loading
    with pytest.raises(SetupError, match="was lost 3 times while running unet") as caught:
        Pipeline(package=package, runner=worker).generate(replace(REQUEST, images=64, width=512, height=512))
    assert caught.value.code == "device.lost"
    assert (len(loaded), len(notices)) == (4, 2)  # the first one ahead of its run


@pytest.mark.parametrize(
    ("error", "arrives"),
    [
        (SetupError("a.code", "It broke.", "Look here."), SetupError("a.code", "It broke.", "Look here.")),
        (DeviceLostError("it is gone"), DeviceLostError("it is gone")),
        (
            ValueError("odd"),
            SetupError(
                "runtime.worker",
                "the worker process failed: ValueError: odd",
                "sdsetup doctor checks the machine.",
            ),
        ),
    ],
)
def test_an_error_goes_from_process_to_process_as_its_fields(error, arrives):
    raised = pickle.loads(pickle.dumps(_Failure.of(error))).raised()  # noqa: S301
    assert (type(raised), str(raised)) == (type(arrives), str(arrives))
    if isinstance(arrives, SetupError):
        assert (raised.code, raised.message, raised.hint) == (arrives.code, arrives.message, arrives.hint)


def test_nothing_is_started_or_left_out_before_it_is_asked_for(package):
    runner = WorkerRunner(package=package, device=cpu())
    assert (runner.low_memory, runner.upcast, runner.skipped) == (False, frozenset(), {})
    assert (runner.usage(), runner.process_id) == ({}, None)
    runner.upcast_to_fp32("unet")
    runner.skip_layers("text_encoder", 1)
    runner.skip_layers("text_encoder_2", 2)
    runner.done_with("unet")
    assert (runner.upcast, runner.skipped) == ({"unet"}, {"text_encoder": 1, "text_encoder_2": 2})
    assert runner.process_id is None
    runner.close()


def test_an_error_in_the_worker_arrives_as_it_was(tmp_path):
    folder = toy_package.write(tmp_path / "torn")
    graph = folder / "unet" / "model.onnx"
    graph.write_bytes(b"?" * graph.stat().st_size)
    package = open_for_images(folder)
    runner = WorkerRunner(package=package, device=cpu())
    try:
        with pytest.raises(SetupError, match="failed while opening unet") as caught:
            Pipeline(package=package, runner=runner).generate(REQUEST)
        assert caught.value.code == "runtime.failed"
        assert caught.value.hint
    finally:
        runner.close()


def test_closing_ends_the_process(package, worker):
    Pipeline(package=package, runner=worker).generate(REQUEST)
    process = psutil.Process(worker.process_id)
    worker.close()
    assert not process.is_running()
    assert worker.process_id is None


def test_a_submodel_runs_in_float32_from_its_next_run_on_in_the_same_process(tmp_path):
    package = open_for_images(write_loud(tmp_path / "half", "vae_decoder"))
    latents = {"latent_sample": np.ones((1, 4, 8, 8), np.float32)}
    runner = WorkerRunner(package=package, device=cpu())
    try:
        overflown = runner.run("vae_decoder", latents)["sample"]
        process_id = runner.process_id
        runner.upcast_to_fp32("vae_decoder")
        found = runner.run("vae_decoder", latents)["sample"]
        assert not np.isfinite(overflown).all()
        assert np.isfinite(found).all()
        assert runner.process_id == process_id
        assert runner.usage()["vae_decoder"].upcast
    finally:
        runner.close()


def test_low_memory_reaches_the_worker(package):
    runner = WorkerRunner(package=package, device=cpu(), low_memory=True)
    try:
        for _ in range(2):
            Pipeline(package=package, runner=runner).generate(REQUEST)
        assert {len(used.load_seconds) for used in runner.usage().values()} == {2}
    finally:
        runner.close()


def test_only_fragile_providers_get_a_worker(package):
    from conversions.providers.table import provider_for

    directml = replace(cpu(), provider=provider_for("directml"))
    assert isinstance(make_runner(package, cpu(), low_memory=False), LocalRunner)
    assert isinstance(make_runner(package, directml, low_memory=False), WorkerRunner)


@dataclass(frozen=True, kw_only=True)
class Noted(RunnerPair):
    """A pair that also notes what is opened ahead."""

    asked: list[str] = field(default_factory=list)

    def open_ahead(self, submodel, sizes):
        self.asked.append(submodel)
        super().open_ahead(submodel, sizes)


def test_what_is_opened_ahead_is_opened_once_and_gives_the_same_image(package):
    expected = Pipeline(package=package, runner=LocalRunner(package=package, device=cpu())).generate(REQUEST)
    fixed = replace(cpu(), provider=replace(cpu().provider, sizes=FIXED_SIZES))  # as DirectML's sessions
    main, other = (WorkerRunner(package=package, device=fixed) for _ in range(2))
    rest = frozenset(each.name for each in package.submodels) - {"unet"}
    runner = Noted(main=main, other=other, elsewhere=rest)
    try:
        assert main.opens_ahead("unet")
        for _ in range(2):
            made = Pipeline(package=package, runner=runner).generate(REQUEST)
            assert np.array_equal(made.pixels, expected.pixels)
        assert main.process_id != other.process_id
        assert runner.asked[:2] == ["unet", "vae_decoder"]
        assert len(runner.asked) == len(set(runner.asked))
        assert {len(used.load_seconds) for used in runner.usage().values()} == {1}
        assert not main.opens_ahead("unet")
    finally:
        runner.close()


def test_a_submodel_that_cannot_be_opened_ahead_says_so_when_it_is_run(tmp_path):
    folder = toy_package.write(tmp_path / "torn")
    graph = folder / "unet" / "model.onnx"
    whole = graph.read_bytes()
    package = open_for_images(folder)
    runner = WorkerRunner(package=package, device=cpu())
    try:
        graph.write_bytes(b"?" * len(whole))
        runner.open_ahead("unet", {})
        runner.skip_layers("text_encoder", 0)
        assert runner.opens_ahead("unet")  # it failed, and nothing was said
        with pytest.raises(SetupError, match="failed while opening unet"):
            runner.run("unet", {})
        graph.write_bytes(whole)
        runner.open_ahead("unet", {})
        assert Pipeline(package=package, runner=runner).generate(REQUEST).pixels.any()
    finally:
        runner.close()


def test_a_worker_that_dies_while_it_opens_ahead_costs_time_alone(package):
    expected = Pipeline(package=package, runner=LocalRunner(package=package, device=cpu())).generate(REQUEST)
    runner = WorkerRunner(package=package, device=cpu())
    try:
        runner.open_ahead("unet", {})
        kill(runner.process_id)
        made = Pipeline(package=package, runner=runner).generate(REQUEST)
        assert np.array_equal(made.pixels, expected.pixels)
        process = psutil.Process(runner.process_id)
        kill(process.pid)
        process.wait()
        for _ in range(3):  # the channel is found broken with the second message at the latest
            runner.open_ahead("text_encoder", {})
        made = Pipeline(package=package, runner=runner).generate(REQUEST)
        assert np.array_equal(made.pixels, expected.pixels)
    finally:
        runner.close()


def test_nothing_is_opened_ahead_where_memory_is_short(package):
    worker = WorkerRunner(package=package, device=cpu(), low_memory=True)
    assert not worker.opens_ahead("unet")
    local = LocalRunner(package=package, device=cpu(), low_memory=True)
    local.open_ahead("unet", {})
    assert not local.usage()
    local.low_memory = False
    assert not local.opens_ahead("unet")
    for _ in range(2):
        local.open_ahead("unet", {})
    assert {name: len(used.load_seconds) for name, used in local.usage().items()} == {"unet": 1}
    local.close()


def test_a_worker_that_is_closed_while_it_opens_ahead_says_nothing(package, capfd):
    runner = WorkerRunner(package=package, device=cpu())
    for name in ("unet", "vae_decoder"):
        runner.open_ahead(name, {})
    process = psutil.Process(runner.process_id)
    runner.close()
    assert not process.is_running()
    assert runner.opens_ahead("unet")
    runner.begin()
    connection = runner._channel.connection
    process = psutil.Process(runner.process_id)
    connection.send_bytes(pickle.dumps((pickle.dumps(("open_ahead", ("unet", {}))), "", [])))
    runner.close()
    process.wait(30)
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_that_cannot_be_started_leaves_nothing_behind(package, monkeypatch):
    def start(self):
        raise OSError("no more processes")

    runner = WorkerRunner(package=package, device=cpu())
    with monkeypatch.context() as broken:
        broken.setattr(multiprocessing.get_context("spawn").Process, "start", start)
        with pytest.raises(OSError, match="no more"):
            runner.begin()
        runner.open_ahead("unet", {})
    assert runner.process_id is None
    runner.close()

"""Which adapters the demo is tried on besides, and what is told of one that fails."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from conversions.events import Event, Notice, ignore
from conversions.providers.devices import Device
from conversions.providers.table import provider_for
from sdsetup import demo
from sdsetup.imaging import adapter_trials
from sdsetup.runtime.devices import list_devices
from sdsetup.runtime.package import open_for_images
from tests.sdsetup import toy_package

DIRECTML, CPU = provider_for("directml"), provider_for("cpu")


def test_other_hardware_of_the_same_provider_is_tried() -> None:
    fast = Device(provider=DIRECTML, name="Radeon RX 6800", number=0)
    integrated = Device(provider=DIRECTML, name="Radeon Graphics", number=1, discrete=False)
    software = Device(provider=DIRECTML, name="Microsoft Basic Render Driver", number=2, software=True)
    processor = Device(provider=CPU, name="CPU")
    devices = (fast, integrated, software, processor)
    assert adapter_trials.others(devices, fast) == (integrated,)
    assert adapter_trials.others(devices, integrated) == (fast,)
    assert adapter_trials.others(devices, processor) == ()


def test_an_adapter_is_told_with_its_time_or_with_what_is_wrong(tmp_path: Path) -> None:
    package = open_for_images(toy_package.write(tmp_path / "package"))
    (here,) = (device for device in list_devices() if device.provider.target == "cpu")
    good = adapter_trials.try_on(package, here, steps=2, listener=ignore)
    assert good.problem == ""
    assert good.seconds > 0
    assert str(good).startswith(f"{here}: ")
    assert str(good).endswith(" s an image")

    gone = Device(provider=CPU, name="CPU", number=7)
    bad = adapter_trials.try_on(package, gone, steps=2, listener=ignore)
    assert "number 7" in bad.problem
    assert str(bad) == f"{gone}: {bad.problem}"


def test_packages_whose_images_are_judged_are_tried_on_each_of_the_others(tmp_path: Path) -> None:
    folder = toy_package.write(tmp_path / "package")
    used = Device(provider=CPU, name="another", number=7)
    heard: list[Event] = []
    assert adapter_trials.try_others(open_for_images(folder), used, steps=2, listener=heard.append) == ()
    assert heard == []
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    index = demo.checkpoint_path() / "model_index.json"
    manifest["checkpoint"]["sha256"] = {index.name: hashlib.sha256(index.read_bytes()).hexdigest()}
    toy_package.write_json(folder / "manifest.json", manifest)
    (trial,) = adapter_trials.try_others(open_for_images(folder), used, steps=2, listener=heard.append)
    assert trial.device.provider == CPU
    assert trial.seconds == 0.0
    assert trial.problem  # the pattern that a toy makes is no image of the demo's
    announced = [event.text for event in heard if isinstance(event, Notice)]
    assert f"running on {trial.device}, one submodel at a time." in announced


def test_a_trial_that_says_nothing_took_no_time() -> None:
    nothing = adapter_trials.AdapterTrial(device=Device(provider=CPU, name="CPU"))
    assert (nothing.seconds, nothing.problem) == (0.0, "")

"""The set-up's promises that can be kept on any machine."""

import subprocess
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the root is built on Linux", allow_module_level=True)

from tests.windows import box, recipes, root
from tests.windows.unavailable import UnavailableError


def test_every_wheel_has_one_exact_version_and_only_numpy_differs_from_the_known_good_set():
    from sdsetup.bootstrap import known_good

    pins = known_good.versions("win32")
    wheels = dict(wheel.split("==") for wheel in recipes.wheels())
    assert wheels["onnxruntime-directml"] == pins["onnxruntime-directml"]
    differing = {name for name, version in wheels.items() if pins.get(name, version) != version}
    assert differing == {"numpy"}


def test_a_changed_recipe_is_another_layer(monkeypatch):
    before = root.layers()
    monkeypatch.setattr(recipes, "wheels", lambda: ["numpy==2.1.3"])
    after = root.layers()
    assert before[0] != after[0]
    assert before[1:] == after[1:]
    monkeypatch.setattr(recipes, "PACKAGES", ["wine"])
    assert not set(before) & set(root.layers())


def test_without_root_rights_the_reason_says_so(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UnavailableError, match="root rights"):
        root.check_machine()


def test_without_mmdebstrap_the_reason_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("shutil.which", lambda program: None if program == "mmdebstrap" else program)
    with pytest.raises(UnavailableError, match="apt-get install mmdebstrap"):
        root.check_machine()


def test_an_unavailable_root_ends_with_the_status_for_skipped(tmp_path):
    python_only = {"PATH": str(tmp_path), "SDSETUP_WINDOWS_ROOT": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "tests.windows", "run"],
        env=python_only, cwd=box.HERE.parent.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 77
    assert "windows: skipped: " in result.stderr


def test_a_failed_build_leaves_no_layer(tmp_path, monkeypatch):
    monkeypatch.setenv("SDSETUP_WINDOWS_ROOT", str(tmp_path))

    def break_off(half_made):
        (half_made / "upper").mkdir()
        raise UnavailableError("no network")

    with pytest.raises(UnavailableError):
        root._build(tmp_path / "system-0", print, break_off)
    assert not (tmp_path / "system-0").exists()
    root._build(tmp_path / "system-0", print, lambda half_made: (half_made / "upper").mkdir())
    assert (tmp_path / "system-0").is_dir()

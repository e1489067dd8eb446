"""Facts of this machine, and what is taken out of them."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from sdsetup import __version__
from sdsetup.disk_space import human_size
from sdsetup.machine import adapters
from sdsetup.machine.adapters import Adapter
from sdsetup.report_page import facts

GIB = 2**30


def test_what_decides_results_and_speed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(adapters, "read", lambda: ())
    found = facts.read()
    assert list(found) == ["sdsetup", "system", "processor", "memory", "Python", "ONNX Runtime", "graphics"]
    assert found["sdsetup"] == __version__
    assert found["system"] == f"{platform.system()} {platform.release()}"
    assert found["processor"] == f"{platform.machine()}, {psutil.cpu_count() or '?'} threads"
    assert found["memory"] == human_size(psutil.virtual_memory().total)
    assert found["Python"] == platform.python_version()
    providers = [name.replace("ExecutionProvider", "") for name in onnxruntime.get_available_providers()]
    assert found["ONNX Runtime"] == f"{onnxruntime.__version__} ({', '.join(providers)})"
    assert found["graphics"] == "none found"


def test_adapters_are_named_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known = (
        Adapter(index=0, name="RX 6800", vram_bytes=16 * GIB, driver_version="31.0"),
        Adapter(index=1, name="Graphics"),
    )
    monkeypatch.setattr(adapters, "read", lambda: known)
    assert facts.read()["graphics"] == "RX 6800, 16.0 GiB, driver 31.0; Graphics"

    def refuse() -> Any:
        raise OSError

    monkeypatch.setattr(adapters, "read", refuse)
    assert facts.read()["graphics"] == "none found"


@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
@pytest.mark.parametrize(
    ("home", "kept"),
    [
        ("/h/ann", "in ~/x and ~ of /h"),
        ("/h", "in /h/ann/x and /h/ann of /h"),
        ("/hh", "in /h/ann/x and /h/ann of /h"),
    ],
)
def test_the_home_folder_is_taken_out(home: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    assert facts.without_person("in /h/ann/x and /h/ann of /h") == kept
    assert "hf_ABC" not in facts.without_person("hf_ABCDEFGHIJKLMNOP")


@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
def test_short_homes_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for home, kept in (("/ab", "/ab/x"), ("/abc", "~/x")):
        monkeypatch.setattr(Path, "home", lambda home=home: Path(home))
        assert facts.without_person(f"{home}/x") == kept

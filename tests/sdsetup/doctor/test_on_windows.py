"""The doctor on Windows: its own paths run for real."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "win32":
    pytest.skip("needs a Windows Python", allow_module_level=True)

pytestmark = pytest.mark.windows


def _doctor(*arguments: str, **changes: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[bytes]]:
    answer = subprocess.run(
        [sys.executable, "-m", "sdsetup", "doctor", "--json", "--offline", *arguments],
        env={**os.environ, **changes},
        capture_output=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert b"Traceback" not in answer.stderr, answer.stderr
    document = json.loads(answer.stdout)
    return {finding["id"]: finding for finding in document["findings"]}, answer


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What a full run finds."""
    return _doctor()[0]


def test_a_full_run_judges_windows_own_things(found: dict[str, Any]) -> None:
    for finding_id in (
        "system.os",
        "system.long-paths",
        "storage.path-length",
        "adapter.choice",
        "runtime.trial",
    ):
        assert found[finding_id]["status"] != "skipped" or "Windows" not in found[finding_id]["evidence"]
    assert "build" in found["system.os"]["evidence"]
    assert found["memory.ram"]["evidence"]
    assert "crashed" not in json.dumps(found)
    assert not [finding for finding in found.values() if "this check itself failed" in finding["evidence"]]
    assert not [finding for finding in found.values() if "reading it failed" in finding["evidence"]]


def test_onnx_runtime_lists_directml_and_its_library_comes_with_the_wheel(found: dict[str, Any]) -> None:
    assert "onnxruntime-directml 1.24.4" in found["runtime.flavours"]["evidence"]
    assert "DmlExecutionProvider" in found["runtime.providers"]["evidence"]
    assert "1.15" in found["runtime.directml"]["evidence"]
    assert "CPU: right" in found["runtime.trial"]["evidence"]


def test_symbolic_links_that_are_refused_are_a_warning_with_developer_mode_as_the_way_out(
    found: dict[str, Any],
) -> None:
    assert found["storage.symlinks"]["status"] == "warning"
    assert "developers" in found["storage.symlinks"]["fix"]["commands"][0]


def test_a_cache_with_japanese_letters_and_spaces_is_fine(tmp_path: Path) -> None:
    found, _ = _doctor("--only", "storage", HF_HOME=str(tmp_path / "\u5199\u771f and more"))
    assert found["storage.writable"]["status"] == "ok"
    assert "letters outside ASCII" in found["storage.paths"]["evidence"]


def test_text_survives_a_pipe_of_cp1252(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "sdsetup", "doctor", "--only", "storage", "--offline"],
        env={**os.environ, "HF_HOME": str(tmp_path / "\u5199\u771f"), "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert answer.returncode in {0, 1}
    assert b"Traceback" not in answer.stderr
    assert b"Space for downloads" in answer.stdout


def test_an_environment_folder_is_proposed_where_windows_keeps_programs_data() -> None:
    from sdsetup.bootstrap import places

    if places.checkout() is None:
        assert "sdsetup" in str(places.environment_folder())
    assert places.python_of(Path("x")) == Path("x") / "Scripts" / "python.exe"


@pytest.mark.directml
def test_directml_is_really_tried_on_the_adapter_and_its_numbers_are_right(found: dict[str, Any]) -> None:
    assert found["adapter.choice"]["evidence"].startswith("[0]")
    assert "Dml on adapter 0: right" in found["runtime.trial"]["evidence"]


@pytest.mark.directml
def test_an_adapter_that_does_not_exist_is_no_success_although_onnx_runtime_stays_silent() -> None:
    """ONNX Runtime answers a wrong device number with the CPU and a session that works."""
    from sdsetup.machine.readers import runtime

    answer = runtime._start("DmlExecutionProvider", "7")
    assert answer["error"]

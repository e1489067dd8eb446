"""What the tiny graphs say, and what is made of a process that says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdsetup.machine import adapters
from sdsetup.machine.adapters import Adapter
from sdsetup.machine.facts import ProviderTrial, Questions, Runtime
from sdsetup.machine.readers import runtime

# Stands in for an ONNX Runtime of Windows: it prints what it was asked, as the real trial would.
LISTED = {
    "version": "1.24",
    "providers": [
        "DmlExecutionProvider",
        "AzureExecutionProvider",
        "XExecutionProvider",
        "CPUExecutionProvider",
    ],
    "directml": {"version": "1.15", "path": "C:\\\\DirectML.dll"},
    "cpu": {"seconds": 0.5, "largest_error": 1e-6},
}
TRIAL = """
import json, os, sys
print("a word before")
answers = json.loads(os.environ["ANSWERS"])
print(json.dumps(answers[" ".join(sys.argv[1:])]))
"""


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    script = tmp_path / "trial.py"
    script.write_text(TRIAL, "utf-8")
    monkeypatch.setattr(runtime, "_TRIAL", script)

    def let(**given: Any) -> None:
        named = {name.replace("_", " "): value for name, value in given.items()}
        monkeypatch.setenv("ANSWERS", json.dumps(named))

    return let


def test_each_provider_and_adapter_is_tried(
    answers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = (
        Adapter(index=0, name="a"),
        Adapter(index=1, name="WARP", software=True),
        Adapter(index=3, name="b"),
    )
    monkeypatch.setattr(adapters, "read", lambda: known)
    answers(
        **{"": LISTED},
        DmlExecutionProvider_0={"seconds": 1.5},
        DmlExecutionProvider_3={"error": "887A0005"},
        XExecutionProvider={"import_error": "no DLL", "largest_error": 2.0},
    )
    assert runtime.read(Questions(output=tmp_path)) == Runtime(
        version="1.24",
        providers=tuple(LISTED["providers"]),
        directml_version="1.15",
        directml_path="C:\\\\DirectML.dll",
        trials=(
            ProviderTrial(provider="CPUExecutionProvider", seconds=0.5, largest_error=1e-6),
            ProviderTrial(provider="DmlExecutionProvider", device=0, seconds=1.5),
            ProviderTrial(provider="DmlExecutionProvider", device=3, error="887A0005"),
            ProviderTrial(provider="XExecutionProvider", error="no DLL", largest_error=2.0),
        ),
    )
    monkeypatch.setattr(adapters, "read", lambda: known[1:2])
    assert runtime._devices() == [0]


def test_little_is_understood_too(answers: Any, tmp_path: Path) -> None:
    answers(**{"": {}})
    assert runtime.read(Questions(output=tmp_path)) == Runtime(
        trials=(ProviderTrial(provider="CPUExecutionProvider"),)
    )
    answers(**{"": ["no", "document"]})
    assert runtime.read(Questions(output=tmp_path)).version == ""
    answers(**{"": {"import_error": "DLL load failed"}})
    assert runtime.read(Questions(output=tmp_path)) == Runtime(import_error="DLL load failed")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "import sys; sys.stderr.write('one\\nlast words'); sys.exit(3)",
            "the process ended with 3: last words",
        ),
        ("import sys; sys.stderr.write('x' * 400)", f"the process ended with 0: {'x' * 300}"),
        ("raise SystemExit(4)", "the process ended with 4"),
        ("print('no JSON'); raise SystemExit(5)", "the process ended with 5"),
    ],
)
def test_a_process_that_ends_otherwise_is_told(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trial.py").write_text(script, "utf-8")
    monkeypatch.setattr(runtime, "_TRIAL", tmp_path / "trial.py")
    assert runtime.read(Questions(output=tmp_path)) == Runtime(import_error=said)
    assert runtime._trial("X", 2) == ProviderTrial(provider="X", device=2, error=said)


def test_a_process_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trial.py").write_text("import time; time.sleep(600)", "utf-8")
    monkeypatch.setattr(runtime, "_TRIAL", tmp_path / "trial.py")
    monkeypatch.setattr(runtime, "_LIMIT_SECONDS", 0.5)
    assert runtime.read(Questions(output=tmp_path)).import_error == "no answer within 0.5 s"
    assert runtime._trial("X", None).error == "no answer within 0.5 s"


def test_the_real_trial_runs_here(tmp_path: Path) -> None:
    seen = runtime.read(Questions(output=tmp_path))
    assert seen.import_error == ""
    assert "CPUExecutionProvider" in seen.providers
    assert seen.trials[0].error == ""
    assert seen.trials[0].seconds > 0

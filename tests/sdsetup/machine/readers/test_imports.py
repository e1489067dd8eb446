"""Modules that can be imported and modules that cannot, in a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdsetup.machine.facts import Imports, Questions
from sdsetup.machine.readers import imports

BROKEN = {
    "fine_mine": "VALUE = 1\n",
    "calls_mine": "def good(): pass\ndef bad(): raise ValueError('two\\n lines')\n",
    "raises_mine": "raise ImportError('no DLL')\n",
    "exits_mine": "raise SystemExit('bye')\n",
    "long_mine": "raise ImportError('x' * 400)\n",
    "warns_mine": "import warnings; warnings.warn('loud')\n",
    "crashes_mine": "import os\nos.write(2, b'first\\nsecond\\nlast \\xff words\\n')\nos._exit(9)\n",
    "asks_mine": "import sys\nraise ImportError(repr(sys.stdin.read()))\n",
    "hangs_mine": "import time; time.sleep(600)\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def tried(*names: str) -> list[tuple[str, str]]:
    done = subprocess.run(
        [sys.executable, "-P", imports._WORKER, *names], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("modules")
def test_the_worker_says_a_line_a_module() -> None:
    assert tried("fine_mine", "warns_mine", "raises_mine", "exits_mine", "long_mine", "no_such_mine") == [
        ("fine_mine", ""),
        ("warns_mine", ""),
        ("raises_mine", "ImportError: no DLL"),
        ("exits_mine", "SystemExit: bye"),
        ("long_mine", f"ImportError: {'x' * 300}"),
        ("no_such_mine", "ModuleNotFoundError: No module named 'no_such_mine'"),
    ]
    assert tried("calls_mine:good()", "calls_mine:bad()", "calls_mine:none()") == [
        ("calls_mine:good()", ""),
        ("calls_mine:bad()", "ValueError: two lines"),
        ("calls_mine:none()", "AttributeError: module 'calls_mine' has no attribute 'none'"),
    ]


def read(modules: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Imports:
    monkeypatch.setattr(imports, "_CORE", names)
    monkeypatch.setattr(
        imports.child_environment, "for_python", lambda *_: {"PYTHONPATH": str(modules), "PATH": ""}
    )
    return imports.read(Questions(output=modules))


@pytest.mark.skipif(sys.platform == "win32", reason="processes start too slowly in the Windows root")
def test_the_module_that_ends_the_process_is_told(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(modules, monkeypatch, "fine_mine", "raises_mine") == Imports(
        tried=2, failed={"raises_mine": "ImportError: no DLL"}
    )
    assert read(modules, monkeypatch, "fine_mine", "crashes_mine", "raises_mine") == Imports(
        tried=3, failed={"crashes_mine": "the process ended with 9 last \ufffd words"}
    )
    monkeypatch.setattr(imports, "_LIMIT_SECONDS", 5.0)
    assert read(modules, monkeypatch, "raises_mine", "hangs_mine", "fine_mine") == Imports(
        tried=3, failed={"raises_mine": "ImportError: no DLL", "hangs_mine": "no answer within 5 s"}
    )
    monkeypatch.setattr(imports, "_LIMIT_SECONDS", 0.5)
    assert read(modules, monkeypatch, "hangs_mine").failed == {"hangs_mine": "no answer within 0.5 s"}


@pytest.mark.skipif(sys.platform == "win32", reason="processes start too slowly in the Windows root")
def test_what_is_typed_is_not_for_the_modules(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (modules / "typed").write_text("hello", "utf-8")
    kept = os.dup(0)
    try:
        with (modules / "typed").open() as typed:
            os.dup2(typed.fileno(), 0)
            assert read(modules, monkeypatch, "asks_mine").failed == {"asks_mine": "ImportError: ''"}
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_what_is_no_answer_is_passed_over() -> None:
    printed = 'noise\n["a", ""]\n["b", "bad"]\n{\n'
    assert imports._understood(["a", "b"], printed, "it ended") == Imports(tried=2, failed={"b": "bad"})
    assert imports._understood(["a", "b", "c", "d"], printed, "it ended") == Imports(
        tried=4, failed={"b": "bad", "c": "it ended"}
    )


@pytest.mark.parametrize(
    ("importing", "there", "wanted"),
    [
        ("", True, ["core"]),
        ("torch", True, ["core", "torch"]),
        ("classes", True, ["core", "torch", "classes"]),
        ("classes", False, ["core"]),
    ],
)
def test_what_is_imported_depends_on_the_use(
    importing: str, there: bool, wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "find_spec", lambda name: object() if there and name == "torch" else None)
    for name in ("core", "torch", "classes"):
        monkeypatch.setattr(imports, f"_{name.upper()}", (name,))
        (tmp_path / f"{name}.py").write_text("raise ImportError('x')", "utf-8")
    monkeypatch.setattr(
        imports.child_environment, "for_python", lambda *_: {"PYTHONPATH": str(tmp_path), "PATH": ""}
    )
    seen = imports.read(Questions(output=tmp_path, importing=importing))
    assert list(seen.failed) == wanted
    assert seen.tried == len(wanted)


@pytest.mark.skipif(sys.platform == "win32", reason="the Windows root has no SOCKS package")
def test_all_that_is_needed_can_be_imported_here() -> None:
    """Names of the lists are those of real modules; what needs PyTorch is tried where it is."""
    names = [*imports._CORE]
    seen = dict(tried(*names))
    assert seen == dict.fromkeys(names, "")
    assert "socksio" in names
    assert imports._TORCH[-1] == "conversions.verification.reference"


@pytest.mark.torch
def test_all_that_tracing_needs_can_be_imported_here() -> None:
    names = [*imports._TORCH, *imports._CLASSES]
    assert dict(tried(*names)) == dict.fromkeys(names, "")
    assert {"torch", "diffusers", "transformers"} < set(names)

"""A checkpoint whose graph must be traced, where PyTorch is not installed: said before anything is done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conversions.graphs import obtain
from sdsetup.demo import checkpoint_path
from sdsetup.machine.readers.model_needs_worker import needs

_PROGRAM = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
absent = {"torch", "diffusers", "transformers"}
PathFinder.find_spec = lambda name, *more: None if name in absent else find(name, *more)

from sdsetup.cli.app import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def unusual(tmp_path: Path) -> Path:
    """A checkpoint with a text encoder that no graph at hand fits."""
    folder = Path(shutil.copytree(checkpoint_path(), tmp_path / "unusual"))
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "layer_norm_eps": 1e-3}), "utf-8")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in a folder with a Python that has no PyTorch, as after ``install --lean``."""
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": root, "XDG_CACHE_HOME": str(folder / "cache")},
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--retrace",), ("--no-verify",)], ids=" ".join)
def test_a_conversion_that_must_trace_is_refused_and_leaves_nothing(
    more: tuple[str, ...], unusual: Path, tmp_path: Path
) -> None:
    refused = run(tmp_path, "convert", "unusual", "--target", "cpu", *more)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: The graph")
    assert "not installed: torch, diffusers and transformers." in refused.stderr
    assert "sdsetup install --torch" in refused.stderr
    assert not (tmp_path / "packages").exists()


def test_a_comparison_with_pytorch_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    refused = run(tmp_path, "convert", "demo", "--target", "cpu", "--reference", "pytorch")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: Comparing with PyTorch needs torch")
    assert not (tmp_path / "packages").exists()


def test_inspect_says_what_to_install_before_converting(unusual: Path, tmp_path: Path) -> None:
    told = run(tmp_path, "inspect", "unusual")
    assert told.returncode == 0, told.stderr
    *_, lacking, then = told.stderr.splitlines()
    assert lacking.startswith("Not installed: torch, diffusers, transformers. First: ")
    assert lacking.endswith("sdsetup install --torch")
    assert then.startswith("Then convert it: ")
    found = json.loads(run(tmp_path, "inspect", "unusual", "--json").stdout)["conversion"]
    assert found["to_trace"] == ["text_encoder"]
    assert found["not_installed"] == ["torch", "diffusers", "transformers"]


def test_what_needs_no_tracing_is_planned_as_ever(tmp_path: Path) -> None:
    known = run(tmp_path, "convert", "demo", "--dry-run", "--target", "cpu")
    assert known.returncode == 0, known.stderr
    assert "Convert it: " in run(tmp_path, "inspect", "demo").stderr


def test_the_doctor_s_reader_says_it_too(unusual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obtain, "find_spec", lambda _: None)
    found = needs("convert", str(unusual))
    assert found["code"] == "graph.needs_pytorch"
    assert "sdsetup install --torch" in found["hint"]

"""The folder of shipped graphs holds one for each architecture that families ask for, and no other."""

from __future__ import annotations

import logging
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conversions import graphs
from conversions.families.stable_diffusion import SD1_TEXT
from conversions.graphs import build
from conversions.submodels.clip_text import CLIP_TEXT


def packed_instead(kind: Any, config: Any) -> bytes:
    """Say what would be traced, and where."""
    return f"{kind.id} {min(config)} {os.getpid()}".encode()


def test_what_families_ask_for_is_built_and_the_rest_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configs = [SD1_TEXT, {**SD1_TEXT, "hidden_size": 32}]
    families = [
        SimpleNamespace(shipped=[SimpleNamespace(label=f"Model {place}", kind=CLIP_TEXT, config=config)])
        for place, config in enumerate(configs)
    ]
    monkeypatch.setattr(build, "all_families", lambda: families)
    monkeypatch.setattr(graphs, "trace_and_pack", packed_instead)
    monkeypatch.setattr(graphs, "SHIPPED_FOLDER", tmp_path)
    (tmp_path / "nobody_s.onnx.xz").write_bytes(b"?")
    stale = tmp_path / f"{graphs.fingerprint(CLIP_TEXT, SD1_TEXT)}.onnx.xz"
    stale.write_bytes(b"?")
    with caplog.at_level(logging.INFO, logger=build.logger.name):
        assert build.build() == 0
    names = [f"{graphs.fingerprint(CLIP_TEXT, config)}.onnx.xz" for config in configs]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for name in names:
        kind, field, process = (tmp_path / name).read_text("utf-8").split()
        assert (kind, field) == ("clip_text", min(SD1_TEXT))
        assert int(process) != os.getpid()
    size = stale.stat().st_size
    assert caplog.messages[0] == f"Model 0, clip_text: {names[0]}, {size} bytes"
    assert len(caplog.messages) == 2


def test_the_module_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "SHIPPED_FOLDER", tmp_path)
    monkeypatch.setattr("conversions.family.all_families", list)
    (tmp_path / "nobody_s.onnx.xz").write_bytes(b"?")
    monkeypatch.delitem(sys.modules, build.__name__)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(build.__name__, run_name="__main__")
    assert caught.value.code == 0
    assert not list(tmp_path.iterdir())

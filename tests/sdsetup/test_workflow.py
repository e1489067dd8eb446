"""Where a conversion's package goes when nobody says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversions.options import Options
from sdsetup.workflow import package_folder


@pytest.mark.parametrize("model", [".", "../My Model", "inner/..", "./"])
def test_a_model_in_the_current_folder_gives_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    (tmp_path / "My Model" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "My Model")
    assert package_folder(model, Options(target="cpu")) == Path("packages/My-Model-cpu-fp16")


def test_a_root_has_no_name() -> None:
    assert package_folder(Path("/").absolute().anchor, Options(target="cpu")).name == "model-cpu-fp16"
    assert package_folder("owner/name@main", Options(target="cpu")).name == "name-cpu-fp16"

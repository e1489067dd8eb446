"""A bundle is refused by name where it does not fit, was torn on the way, or is none."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sdsetup import bundled_model
from sdsetup.bootstrap import bundle
from sdsetup.bootstrap.installer import Wanted, flavour_for
from sdsetup.errors import SetupError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished bundle of one file."""
    import sys

    wheel = tmp_path / "wheels" / "sdsetup-1-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"a wheel")
    wanted = Wanted(requirement="x", editable=False, flavour=flavour_for(sys.platform), extras=())
    bundle._describe(tmp_path, wanted, {"wheels/sdsetup-1-py3-none-any.whl": bundle._record(wheel)})
    return tmp_path


def test_a_whole_one_opens(folder: Path) -> None:
    opened = bundle.open_bundle(folder)
    assert opened.own_wheel.name == "sdsetup-1-py3-none-any.whl"
    assert opened.extras == ()


def test_pip_takes_a_folder_with_spaces_in_its_name_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")
    bundle.Bundle(folder=tmp_path / "my bundle", extras=(), flavour="cpu").use()
    assert os.environ["PIP_FIND_LINKS"].split() == [(tmp_path / "my bundle" / "wheels").as_uri()]


def _change(folder: Path, **changes: Any) -> None:
    file = folder / "bundle.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_what_does_not_fit_or_is_torn_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is no bundle, or was not finished"):
        bundle.open_bundle(tmp_path / "wheels")
    made_for = json.loads((folder / "bundle.json").read_text())["made_for"]
    _change(folder, made_for={**made_for, "Python": "3.9"})
    with pytest.raises(SetupError, match=r"was made for Python 3\.9; this is 3\."):
        bundle.open_bundle(folder)
    _change(folder, made_for=made_for)
    (folder / "wheels" / "sdsetup-1-py3-none-any.whl").write_bytes(b"a whale")
    with pytest.raises(SetupError, match="was changed on the way"):
        bundle.open_bundle(folder)
    _change(folder, files={})
    with pytest.raises(SetupError, match="was not finished"):
        bundle.open_bundle(folder)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    wanted = Wanted(requirement="x", editable=False, flavour="cpu", extras=())
    with pytest.raises(SetupError, match="holds other things than a bundle"):
        bundle.make(tmp_path, tmp_path, wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_model_is_put_in_and_found_by_its_name(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine"
    model.mkdir()
    (model / "model_index.json").write_text("{}")
    bundled_model.put(str(model), folder, lambda _: None)
    assert bundled_model.find("mine", folder) == str(folder / "models" / "mine")
    assert bundled_model.find("demo", folder) == "demo"
    with pytest.raises(SetupError, match="holds no model owner/other; it holds demo, mine"):
        bundled_model.find("owner/other", folder)

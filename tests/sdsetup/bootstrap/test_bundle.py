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
    """A finished bundle of three files."""
    import sys

    parts = {"wheels": "sdsetup-1-py3-none-any.whl", "sdsetup": "__main__.py", "conversions": "api.py"}
    for part, name in parts.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / name).write_bytes(b"a file")
    wanted = Wanted(requirement="x", editable=False, flavour=flavour_for(sys.platform), extras=())
    bundle._describe(tmp_path, wanted, bundle._records(tmp_path, parts))
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
    with pytest.raises(SetupError, match=r"there is no folder .*nowhere") as caught:
        bundle.open_bundle(tmp_path / "nowhere")
    assert "Errno" not in caught.value.message
    made_for = json.loads((folder / "bundle.json").read_text())["made_for"]
    _change(folder, made_for={**made_for, "Python": "3.9"})
    with pytest.raises(SetupError, match=r"was made for Python 3\.9; this is 3\."):
        bundle.open_bundle(folder)
    _change(folder, made_for=made_for)
    _change(folder, format=1)
    with pytest.raises(SetupError, match="it has the format 1"):
        bundle.open_bundle(folder)
    _change(folder, format=bundle._FORMAT, files={})
    with pytest.raises(SetupError, match="was not finished"):
        bundle.open_bundle(folder)


@pytest.mark.parametrize("part", ["wheels", "sdsetup", "conversions"])
@pytest.mark.parametrize("fault", ["changed", "missing", "added"])
def test_what_is_executed_or_read_is_compared(part: str, fault: str, folder: Path) -> None:
    (file,) = (folder / part).iterdir()
    if fault == "changed":
        file.write_bytes(b"a filf")
    elif fault == "missing":
        file.unlink()
    else:
        (folder / part / "more").write_bytes(b"")
    with pytest.raises(SetupError, match="is missing, was added, or was changed on the way"):
        bundle.open_bundle(folder)


def test_what_python_writes_when_it_runs_from_there_is_no_fault(folder: Path) -> None:
    (folder / "sdsetup" / "__pycache__").mkdir()
    (folder / "sdsetup" / "__pycache__" / "__main__.cpython-312.pyc").touch()
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
    bundle.open_bundle(folder)
    (folder / "models" / "mine" / "model_index.json").write_text("{ }")
    with pytest.raises(SetupError, match="was changed on the way"):
        bundled_model.find("mine", folder)


def test_a_model_that_came_only_in_part_is_refused(folder: Path) -> None:
    (folder / "models" / "owner--half").mkdir(parents=True)
    (folder / "models" / "owner--half" / "weights.safetensors").touch()
    with pytest.raises(SetupError, match="was added, or was changed"):
        bundled_model.find("owner/half", folder)


def test_what_file_managers_leave_on_a_stick_is_no_fault(folder: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._sdsetup-1-py3-none-any.whl"):
        (folder / "wheels" / name).write_bytes(b"")
    assert bundle.open_bundle(folder).own_wheel.name == "sdsetup-1-py3-none-any.whl"


def test_one_that_holds_its_model_alone_was_not_finished(folder: Path) -> None:
    """As a run is left that was killed while it made a bundle anew."""
    (folder / "models" / "one").mkdir(parents=True)
    (folder / "models" / "one" / "model_index.json").write_bytes(b"{}")
    bundle.add_model(folder, folder / "models" / "one")
    kept = bundle._models_in(folder)
    assert set(kept) == {"models/one/model_index.json"}
    _change(folder, files=kept)
    with pytest.raises(SetupError, match="was not finished"):
        bundle.open_bundle(folder)
    bundle.require_model(folder, folder / "models" / "one")


def test_a_bundle_is_not_made_over_the_program_that_makes_it(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    try:
        for name in ("sdsetup", "conversions"):
            (tmp_path / name).symlink_to(Path(bundle.__file__).resolve().parents[2] / name)
    except OSError as error:
        pytest.skip(f"no symbolic link can be made here: {error}")
    wanted = Wanted(requirement="x", editable=False, flavour="cpu", extras=())
    with pytest.raises(SetupError, match="is where this program runs from"):
        bundle.make(tmp_path, tmp_path / "environment", wanted)
    assert Path(bundle.__file__).is_file()

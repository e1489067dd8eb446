"""Where a package may go, and one run at a time."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from conversions.errors import ConversionError
from conversions.package.destination import demand_elsewhere, reserved
from conversions.package.layout import MANIFEST, open_package
from tests.sdsetup import toy_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toy_package.write(tmp_path / "toy")


def refused(output: Path, *, overwrite: bool = False) -> str:
    with pytest.raises(ConversionError) as caught, reserved(output, overwrite=overwrite):
        pytest.fail("the destination was given away")
    assert str(output) in caught.value.message
    return caught.value.code


def test_a_destination_is_given_to_one_run_at_a_time(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "package"
    with reserved(output, overwrite=False):
        assert not output.exists()
        script = (
            "import sys; from pathlib import Path; from conversions.errors import ConversionError\n"
            "from conversions.package.destination import reserved\n"
            "try:\n"
            "    with reserved(Path(sys.argv[1]), overwrite=True): print('taken')\n"
            "except ConversionError as error: print(error.code)\n"
        )
        done = subprocess.run([sys.executable, "-c", script, str(output)], capture_output=True, text=True)
        assert done.stdout == "package.busy\n", done.stderr
    with reserved(output, overwrite=False):
        pass
    assert not list(output.parent.iterdir())


def test_what_is_no_package_is_never_replaced(folder: Path, tmp_path: Path) -> None:
    assert refused(folder) == "package.exists"
    with reserved(folder, overwrite=True):
        pass
    (tmp_path / "file").touch()
    for overwrite in (False, True):  # that it is there already would send a person to --overwrite
        assert refused(tmp_path / "file", overwrite=overwrite) == "package.not_a_folder"
    (folder / MANIFEST).unlink()
    for overwrite in (False, True):
        assert refused(folder, overwrite=overwrite) == "package.foreign"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == "package.exists"
    with reserved(tmp_path / "empty", overwrite=True):
        pass


def test_a_package_whose_successor_never_came_is_put_back(folder: Path) -> None:
    folder.rename(folder.with_name(".toy.old"))
    assert refused(folder) == "package.exists"
    assert open_package(folder).name == "toy"
    # One that its successor has replaced is left to the next publishing.
    folder.with_name(".toy.old").mkdir()
    with reserved(folder, overwrite=True):
        assert folder.with_name(".toy.old").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(errno.EACCES, "no", "/x"), "package.read_only"),
        (PermissionError(errno.EACCES, "no"), "package.read_only"),
        (OSError(errno.ENOSPC, "full"), "package.disk_full"),
        (OSError(errno.EDQUOT, "quota"), "package.disk_full"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_message(tmp_path: Path, error: OSError, code: str) -> None:
    with pytest.raises(ConversionError) as caught, reserved(tmp_path / "package", overwrite=False):
        raise error
    assert caught.value.code == code
    assert (error.filename or str(tmp_path)) in caught.value.message
    assert not list(tmp_path.iterdir())


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="broken disk"), reserved(tmp_path / "package", overwrite=False):
        raise OSError(errno.EIO, "broken disk")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", [".", "..", "", "inner/..", "../toy", "../../", "/"])
def test_the_current_folder_is_not_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, overwrite: bool
) -> None:
    monkeypatch.chdir(folder)
    assert refused(Path(place), overwrite=overwrite) == "package.here"
    assert refused(folder, overwrite=overwrite) == "package.here"
    demand_elsewhere(Path("inner"))
    demand_elsewhere(Path("../other"))
    assert (folder / MANIFEST).is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="a folder that somebody is in stays there")
def test_a_current_folder_that_is_gone_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with reserved(tmp_path / "package", overwrite=False):
        pass

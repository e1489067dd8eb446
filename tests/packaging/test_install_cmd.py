"""install.cmd under a Windows cmd, and the command's place on the user's search path."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.windows

SCRIPT = Path(__file__).parents[2] / "install.cmd"


def _run(
    folder: Path, *arguments: str, script: Path = SCRIPT, **more: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name.upper() not in {"PATH", "ONEDRIVE"}}
    system = os.environ.get("SYSTEMROOT", r"C:\windows")
    environment = {
        **kept,
        "PATH": rf"{system}\system32;{system}",
        "LOCALAPPDATA": str(folder / "Ünï Local"),
        "USERPROFILE": str(folder),
        **more,
    }
    # As Explorer writes it: without /s and the outer quotes cmd takes the inner ones away where there is a &.
    line = f'cmd /s /c ""{script}" {subprocess.list2cmdline(arguments)}"'
    return subprocess.run(
        line, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=120,
    )  # fmt: skip


def test_without_a_python_it_says_what_to_type_and_makes_nothing(tmp_path: Path) -> None:
    answer = _run(tmp_path, "--command-only")
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "Python 3.11, 3.12 or 3.13 (64 bits) is needed" in answer.stderr
    assert "next: " in answer.stderr
    assert "python.org/downloads/windows" in answer.stderr or "winget install" in answer.stderr


@pytest.mark.parametrize("name", ["a & b", "(brackets)", "sure!"])
def test_it_works_from_a_folder_with_signs_of_cmd_s_in_its_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    (folder / "no bundle").mkdir()
    environment = folder / "sdsetup" / "venv" / "Scripts"
    environment.mkdir(parents=True)
    for file in ("python.exe", "python3.dll", "python312.dll", "vcruntime140.dll", "vcruntime140_1.dll"):
        shutil.copy(Path(sys.executable).parent / file, environment)
    (environment.parent / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).parent}\n")
    site = environment.parent / "Lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "pip.py").touch()  # enough to be taken for an environment
    answer = _run(
        folder, "--offline", "no bundle", script=folder / SCRIPT.name, LOCALAPPDATA=str(folder)
    )  # fmt: skip
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert f"error: {folder}\\no bundle is no bundle: it has no folder wheels." in answer.stderr


def test_a_python_that_cannot_make_environments_is_passed_over(tmp_path: Path) -> None:
    """The embedded Python that runs this has no venv."""
    answer = _run(tmp_path, "--command-only", SDSETUP_PYTHON=sys.executable)
    assert answer.returncode == 1
    assert "is needed, and none was found" in answer.stderr
    assert not (tmp_path / "Ünï Local" / "sdsetup").exists()


def test_the_command_is_put_on_the_user_s_path_and_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdsetup.bootstrap import on_path, places

    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    before = on_path._user_path()
    on_path._write_user_path([r"%USERPROFILE%\mine"])
    try:
        assert on_path.put(tmp_path / "sdsetup" / "venv") is False
        assert on_path._user_path() == [r"%USERPROFILE%\mine", str(places.data_folder() / "bin")]
        assert on_path.command().read_bytes() == b'@"%~dp0..\\venv\\Scripts\\sdsetup.exe" %*\r\n'
        assert len(on_path.remove()) == 2
        assert on_path._user_path() == [r"%USERPROFILE%\mine"]
        assert not on_path.command().exists()
    finally:
        on_path._write_user_path(before)

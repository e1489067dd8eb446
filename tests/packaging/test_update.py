"""``sdsetup update`` to a newer release and back, from a real index, in a real environment.

Minutes: ``python -m tests -m robustness tests/packaging``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.building import run, sources, started, wheel
from tests.sdsetup.bootstrap.small_index import index
from tests.sdsetup.bootstrap.small_index import wheel as small_wheel

if sys.platform == "win32":
    pytest.skip("the tests there have no sources", allow_module_level=True)

venv = pytest.importorskip("venv", reason="an embedded Python has no venv")

pytestmark = [pytest.mark.robustness, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a later release, which was tested with another mdurl."""
    copy = sources(tmp_path_factory.mktemp("newer"))
    pins = copy / "sdsetup" / "bootstrap" / "known_good" / "constraints.txt"
    pins.write_text("".join(_changed(line) for line in pins.read_text().splitlines(keepends=True)))
    project = copy / "pyproject.toml"
    project.write_text(
        project.read_text().replace('fallback-version = "0.1.0.dev0"', 'fallback-version = "9.9.0"')
    )
    return wheel(copy, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def needing_more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a later release with one more dependency."""
    copy = sources(tmp_path_factory.mktemp("needing"))
    project = copy / "pyproject.toml"
    text = project.read_text().replace('fallback-version = "0.1.0.dev0"', 'fallback-version = "9.9.1"')
    project.write_text(text.replace('  "filelock>=', '  "one-more>=1",\n  "filelock>=', 1))
    return wheel(copy, tmp_path_factory.mktemp("wheel"))


def test_where_pip_alone_installed_it_new_dependencies_come_with_an_update(
    tagged: Path, needing_more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_a_newcomer(tmp_path, monkeypatch)
    served = tmp_path / "served"
    small_wheel(served, "one-more", "1.5")
    shutil.copy(needing_more, served)
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True, symlinks=True)
    python, command = environment / "bin" / "python", environment / "bin" / "sdsetup"
    run(python, "-m", "pip", "install", "-q", tagged)
    before = _frozen(python)
    with index(served) as (address, _):
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", address)
        run(command, "update")
    assert run(command, "--version") == "sdsetup 9.9.1\n"
    assert set(_without_own(_frozen(python))) - set(before) == {"one-more==1.5"}
    run(python, "-m", "pip", "check")
    run(command, "update", "--back")
    assert run(command, "--version") == "sdsetup 9.8.7\n"
    assert set(before) - set(_frozen(python)) <= {each for each in before if each.startswith("sdsetup")}


def _as_a_newcomer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PYTHON", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)


def _changed(line: str) -> str:
    return "mdurl==0.1.1\n" if line.startswith("mdurl==") else line


def test_to_the_newest_and_back(
    tagged: Path, newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_a_newcomer(tmp_path, monkeypatch)
    served = tmp_path / "served"
    served.mkdir()
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True, symlinks=True)
    python, command = environment / "bin" / "python", environment / "bin" / "sdsetup"
    run(python, "-m", "pip", "install", "-q", tagged)
    run(command, "install", "--lean", "--yes")
    before = _frozen(python)
    assert "sdsetup==9.8.7" in before or any(line.startswith("sdsetup @") for line in before)

    shutil.copy(tagged, served)
    with index(served) as (address, _):
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", address)
        run(command, "update")  # it is the newest
    assert "nothing to go back to" in started(command, "update", "--back").stderr
    assert _frozen(python) == before

    shutil.copy(newer, served)
    with index(served) as (address, _):
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", address)
        run(command, "update")
    assert run(command, "--version") == "sdsetup 9.9.0\n"
    assert "mdurl==0.1.1" in _frozen(python)

    run(command, "update", "--back")
    assert run(command, "--version") == "sdsetup 9.8.7\n"
    assert _without_own(_frozen(python)) == _without_own(before)
    answer = subprocess.run(
        [command, "install", "--lean", "--yes"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def _frozen(python: Path) -> list[str]:
    return run(python, "-m", "pip", "freeze").splitlines()


def _without_own(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("sdsetup")]

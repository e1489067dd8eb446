"""The wheel holds all that sdsetup needs, has the tag's version, and starts without any other package."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.building import PACKAGES, ROOT, run, sources, started, wheel

if sys.platform == "win32":
    pytest.skip("the tests there have no sources", allow_module_level=True)

venv = pytest.importorskip("venv", reason="an embedded Python has no venv")


@pytest.fixture(scope="module")
def command(tagged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in a new environment that holds the wheel and nothing that it needs."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", tagged)
    return environment / "bin" / "sdsetup"


def test_the_wheel_holds_every_file_of_both_packages(tagged: Path) -> None:
    with zipfile.ZipFile(tagged) as archive:
        packed = {name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "_version.py"
    }
    assert packed == files | {"sdsetup/_version.py"}
    assert any(name.startswith("conversions/graphs/shipped/") for name in packed)
    assert {
        "sdsetup/bootstrap/known_good/constraints.txt",
        "sdsetup/demo/checkpoint/model_index.json",
    } < packed


def test_its_version_is_the_tags(tagged: Path, command: Path) -> None:
    assert tagged.name == "sdsetup-9.8.7-py3-none-any.whl"
    assert run(command, "--version") == "sdsetup 9.8.7\n"


def test_a_copy_without_git_builds_too(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    built = wheel(sources(tmp_path / "sources"), tmp_path / "wheels")
    assert built.name == "sdsetup-0.1.0.dev0-py3-none-any.whl"


def test_the_doctor_starts_from_the_wheel_alone(command: Path, tmp_path: Path) -> None:
    document = json.loads(started(command, "doctor", "--json", "--offline", cwd=tmp_path).stdout)
    assert document["sdsetup"] == "9.8.7"
    missing = {finding["id"] for finding in document["findings"] if finding["status"] == "failure"}
    assert "packages.core" in missing
    named = [each for finding in document["findings"] for each in (finding["fix"] or {}).get("commands", ())]
    assert any(each.startswith(f"{command} ") for each in named), named
    assert not [each for each in named if each.startswith("python -m")]


def test_other_commands_say_what_is_missing_and_what_to_type(command: Path, tmp_path: Path) -> None:
    answer = started(command, "generate", "a", "b", cwd=tmp_path)
    assert answer.returncode == 1
    assert "needs the Python package" in answer.stderr
    assert f"{command} install" in answer.stderr


def test_the_verbose_version_names_the_environment(command: Path) -> None:
    told = dict(line.split(" ", 1) for line in run(command, "--version", "--verbose").splitlines())
    assert told["sdsetup"] == "9.8.7"
    assert told["source"] == "installed"
    assert Path(told["environment"]) == command.parents[1]


def test_a_plan_alone_writes_nothing_also_where_the_environment_will_not_last(
    tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing = tmp_path / "archive-v0" / "environment"  # as uvx has it
    venv.create(passing, with_pip=False, symlinks=True)
    python = passing / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", tagged)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    answer = started(passing / "bin" / "sdsetup", "install", "--dry-run", cwd=home)
    assert answer.returncode == 0, answer.stderr
    assert str(home / ".local" / "share" / "sdsetup" / "venv") in answer.stderr
    assert list(home.iterdir()) == []

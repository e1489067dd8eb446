"""The wheel holds all that sdsetup needs, has the tag's version, and starts without any other package."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the tests there have no sources", allow_module_level=True)

venv = pytest.importorskip("venv", reason="an embedded Python has no venv")

ROOT = Path(__file__).parents[2]
PACKAGES = ("sdsetup", "conversions")


def _started(*argv: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_"))}
    return subprocess.run(
        [str(argument) for argument in argv], cwd=cwd, env=kept,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip


def _run(*argv: str | Path, cwd: Path | None = None) -> str:
    answer = _started(*argv, cwd=cwd)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def _sources(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "_version.py")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    return folder


def _wheel(sources: Path, folder: Path) -> Path:
    _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, sources)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a repository whose commit has the tag v9.8.7."""
    sources = _sources(tmp_path_factory.mktemp("tagged"))
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    _run("git", "init", "-q", cwd=sources)
    _run("git", "add", "-A", cwd=sources)
    _run("git", *identity, "commit", "-q", "-m", "a release", cwd=sources)
    _run("git", *identity, "tag", "-a", "v9.8.7", "-m", "a release", cwd=sources)
    return _wheel(sources, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def command(tagged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in a new environment that holds the wheel and nothing that it needs."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", tagged)
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
    assert _run(command, "--version") == "sdsetup 9.8.7\n"


def test_a_copy_without_git_builds_too(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    wheel = _wheel(_sources(tmp_path / "sources"), tmp_path / "wheels")
    assert wheel.name == "sdsetup-0.1.0.dev0-py3-none-any.whl"


def test_the_doctor_starts_from_the_wheel_alone(command: Path, tmp_path: Path) -> None:
    document = json.loads(_started(command, "doctor", "--json", "--offline", cwd=tmp_path).stdout)
    assert document["sdsetup"] == "9.8.7"
    missing = {finding["id"] for finding in document["findings"] if finding["status"] == "failure"}
    assert "packages.core" in missing


def test_other_commands_say_what_is_missing_and_what_to_type(command: Path, tmp_path: Path) -> None:
    answer = _started(command, "generate", "a", "b", cwd=tmp_path)
    assert answer.returncode == 1
    assert "needs the Python package" in answer.stderr
    assert "-m sdsetup install" in answer.stderr


def test_the_verbose_version_names_the_environment(command: Path) -> None:
    told = dict(line.split(" ", 1) for line in _run(command, "--version", "--verbose").splitlines())
    assert told["sdsetup"] == "9.8.7"
    assert told["source"] == "installed"
    assert Path(told["environment"]) == command.parents[1]

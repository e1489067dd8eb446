"""`sdsetup uninstall` removes what was installed and leaves what the person made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("lays environments out the POSIX way", allow_module_level=True)

import venv

from sdsetup.bootstrap import lock

ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which sdsetup was installed by its script, converted a model and made an image."""
    data = tmp_path / ".local" / "share" / "sdsetup"
    venv.create(data / "venv", with_pip=False, symlinks=True)
    (data / "venv" / "sdsetup-install.json").write_text(json.dumps({"extras": []}))
    (tmp_path / ".cache" / "sdsetup" / "graphs").mkdir(parents=True)
    (tmp_path / ".local" / "bin").mkdir()
    (tmp_path / ".local" / "bin" / "sdsetup").symlink_to(data / "venv" / "bin" / "sdsetup")
    mark = 'export PATH="$HOME/.local/bin:$PATH"  # added by sdsetup\n'
    (tmp_path / ".profile").write_text(f"mine=1\n{mark}too=2\n")
    weights = tmp_path / ".cache" / "huggingface" / "weights"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    (tmp_path / "packages").mkdir()
    os.link(weights, tmp_path / "packages" / "weights")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "first.png").write_bytes(b"image")
    return tmp_path


def _start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    # As an installed copy has it: two packages, and no pyproject.toml beside them.
    code = home / "code"
    if not code.exists():
        code.mkdir()
        for package in ("sdsetup", "conversions"):
            (code / package).symlink_to(ROOT / package)
    base = getattr(sys, "_base_executable", sys.executable)
    start = (
        "import sys; from pathlib import Path; from sdsetup.bootstrap import places;"
        f"places._HERE = Path({str(code)!r}); from sdsetup.bootstrap.cli import main;"
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(code)}
    return subprocess.Popen(
        [base, "-c", start, "uninstall", *arguments], cwd=home, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _uninstall(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    with _start(home, *arguments) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_what_the_person_made_stays_and_all_else_goes(home: Path) -> None:
    answer = _uninstall(home, "--yes")
    assert answer.returncode == 0, answer.stderr
    assert not (home / ".local" / "share" / "sdsetup").exists()
    assert not (home / ".cache" / "sdsetup").exists()
    assert not os.path.lexists(home / ".local" / "bin" / "sdsetup")
    assert (home / ".profile").read_text() == "mine=1\ntoo=2\n"
    assert (home / "packages" / "weights").read_bytes() == b"weights"
    assert (home / ".cache" / "huggingface" / "weights").read_bytes() == b"weights"
    assert (home / "images" / "first.png").is_file()
    assert "Nothing of sdsetup is installed here" in _uninstall(home, "--yes").stderr


def test_it_waits_for_an_installation_that_is_under_way(home: Path) -> None:
    environment = home / ".local" / "share" / "sdsetup" / "venv"
    with lock.alone(lock.of_environment(environment), lambda: pytest.fail("waited")):
        process = _start(home, "--yes")
        assert process.stderr is not None
        for line in process.stderr:
            if "waiting for it to end" in line:
                break
        assert environment.is_dir()
    assert process.communicate() is not None
    assert process.returncode == 0
    assert not environment.parent.exists()


def test_an_image_that_was_rescued_to_the_data_folder_stays(home: Path) -> None:
    data = home / ".local" / "share" / "sdsetup"
    (data / "images").mkdir()
    (data / "images" / "rescued.png").write_bytes(b"image")
    (data / "sdsetup-1-py3-none-any.whl").write_bytes(b"wheel")
    answer = _uninstall(home, "--yes")
    assert answer.returncode == 0, answer.stderr
    assert [path.name for path in data.rglob("*")] == ["images", "rescued.png"]


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_nothing_goes_without_a_yes(arguments: tuple[str, ...], home: Path) -> None:
    before = sorted(path for path in home.rglob("*") if "code" not in path.parts)
    answer = _uninstall(home, *arguments)
    assert answer.returncode == (0 if arguments else 1)
    assert str(home / ".local" / "share" / "sdsetup") in answer.stderr
    assert sorted(path for path in home.rglob("*") if "code" not in path.parts) == before


@pytest.mark.parametrize("stamp", [None, {"extras": [], "found_there": True}, {"extras": []}])
def test_a_clone_s_environment_goes_if_it_was_made_here(stamp: dict[str, object] | None, home: Path) -> None:
    environment = home / "code" / ".venv"
    venv.create(environment, with_pip=False, symlinks=True)
    for name in ("sdsetup", "conversions", "pyproject.toml"):
        (home / "code" / name).symlink_to(ROOT / name)
    if stamp is not None:
        (environment / "sdsetup-install.json").write_text(json.dumps(stamp))
    info = next((environment / "lib").glob("python3.*")) / "site-packages" / "sdsetup-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: sdsetup\nVersion: 1\n")
    answer = _uninstall(home, "--yes")
    own = stamp is not None and not stamp.get("found_there")
    assert environment.is_dir() != own, answer.stderr
    assert (f"next: {environment}/bin/python -m pip uninstall sdsetup" in answer.stderr) != own

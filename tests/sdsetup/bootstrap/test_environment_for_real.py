"""Environments that people have: made by another Python, and torn ones that `install` mends."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("lays environments out the POSIX way", allow_module_level=True)

import venv

from sdsetup.bootstrap import environment_maker, integrity, known_good, places
from sdsetup.bootstrap.installer import Wanted
from sdsetup.bootstrap.interpreter import look_at

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("sdsetup", "conversions"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A Python outside any environment as far as sdsetup can tell: the base of this one."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def _other_python() -> str:
    """Find a Python that is too old or too new for sdsetup."""
    versions = Path("~/.pyenv/versions").expanduser()
    for minor in (10, 9, 8, 14):
        for found in (*versions.glob(f"3.{minor}.*/bin/python3.{minor}"), shutil.which(f"python3.{minor}")):
            if found and not subprocess.run([str(found), "-V"], capture_output=True, check=False).returncode:
                return str(found)
    pytest.skip("there is no Python that does not fit")


def _run(python: str, checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [python, "-s", "-m", "sdsetup", *arguments], cwd=checkout, env=kept,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip


def test_an_environment_of_another_python_is_told_the_same_by_every_verb(checkout: Path, bare: str) -> None:
    made = subprocess.run(
        [_other_python(), "-m", "venv", "--without-pip", str(checkout / ".venv")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"it makes no environments: {made.stderr}")
    said = _run(bare, checkout, "install").stderr
    assert "outside 3.11 to 3.13" in said
    assert "move it away or delete it" in said
    assert _run(bare, checkout, "generate", "x", "y").stderr == said
    doctor = _run(bare, checkout, "doctor", "--only", "python.environment", "--json")
    (finding,) = json.loads(doctor.stdout)["findings"]
    assert finding["status"] == "failure"
    assert f"error: {finding['evidence']}" in said
    assert finding["fix"]["says"].lower() in said.lower()


@pytest.mark.parametrize("kind", ["a file", "a folder of somebody else's", "a link that leads nowhere"])
def test_something_else_in_its_place_is_left_alone_and_told_the_same(
    kind: str, checkout: Path, bare: str
) -> None:
    place = checkout / ".venv"
    if kind == "a file":
        place.write_text("precious")
    elif kind == "a folder of somebody else's":
        place.mkdir()
        (place / "precious").write_text("x")
    else:
        place.symlink_to(checkout / "nowhere")
    said = _run(bare, checkout, "install").stderr
    assert "was not made by sdsetup" in said, said
    assert os.path.lexists(place)
    doctor = _run(bare, checkout, "doctor", "--only", "python.environment", "--json")
    (finding,) = json.loads(doctor.stdout)["findings"]
    assert f"error: {finding['evidence']}" in said


def _take_the_end_away(info: Path) -> None:
    """Leave what a pip leaves that is killed while it writes INSTALLER: the wheel's own list of files."""
    (info / "INSTALLER").rename(info / "INSTALLERabcdefgh.tmp")
    (info / "REQUESTED").unlink(missing_ok=True)
    record = info / "RECORD"
    lines = record.read_text("utf-8").splitlines(keepends=True)
    record.write_text("".join(line for line in lines if "/INSTALLER," not in line and ".pyc," not in line))


TEARS = {
    "a file": lambda site: (site / "platformdirs" / "unix.py").unlink(),
    "a file's contents": lambda site: (site / "platformdirs" / "unix.py").write_text("x = 1\n"),
    "a folder": lambda site: shutil.rmtree(site / "platformdirs"),
    "a package and its description": lambda site: [
        shutil.rmtree(path) for path in site.glob("platformdirs*")
    ],
    "a list of files": lambda site: next(site.glob("platformdirs-*.dist-info/RECORD")).unlink(),
    "an end": lambda site: _take_the_end_away(next(site.glob("platformdirs-*.dist-info"))),
    "pip": lambda site: shutil.rmtree(site / "pip" / "_vendor"),
}


# Each makes an environment of its own, for a quarter of a minute.
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind == "pip" else pytest.mark.robustness) for kind in TEARS],
)
def test_install_sees_a_torn_environment_and_mends_it(kind: str, tmp_path: Path) -> None:
    """A project of one small requirement; real environment, pip and index."""
    project, environment = tmp_path / "project", tmp_path / "environment"
    (project / "sdsetup").mkdir(parents=True)
    (project / "sdsetup" / "__init__.py").touch()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling>=1.27"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "sdsetup"\nversion = "1"\ndependencies = ["platformdirs"]\n'
        "[project.optional-dependencies]\ncpu = []\n"
    )
    wanted = Wanted(requirement=str(project), editable=True, flavour="cpu", extras=())
    venv.create(environment, with_pip=False, symlinks=True)
    environment_maker.prepare(environment, wanted)
    assert environment_maker.is_ready(environment, wanted)
    site = look_at(places.python_of(environment)).site
    assert site is not None

    TEARS[kind](site)
    assert not environment_maker.is_ready(environment, wanted)
    environment_maker.prepare(environment, wanted)
    assert environment_maker.is_ready(environment, wanted)
    assert not integrity.torn(site)
    python = str(places.python_of(environment))
    subprocess.run([python, "-I", "-c", "import platformdirs, platformdirs.unix"], check=True)
    version = known_good.versions()["platformdirs"]
    assert (site / f"platformdirs-{version}.dist-info").is_dir()
    assert not list(site.glob("*/*.tmp"))

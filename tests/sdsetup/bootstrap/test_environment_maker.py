import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("lays environments out the POSIX way", allow_module_level=True)

import venv

from sdsetup import __version__
from sdsetup.bootstrap import environment_maker, known_good, places
from sdsetup.bootstrap.installer import Wanted
from sdsetup.cli.verbs import VERBS
from sdsetup.errors import SetupError

ROOT = Path(__file__).parents[3]


def _environment(folder: Path, *distributions: str) -> Path:
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = (folder / "lib").glob("python3.*/site-packages")
    for distribution in distributions:
        _distribution(site, distribution)
    return folder


def _distribution(site: Path, named: str) -> None:
    name, version = named.split("-")
    info = site / f"{named}.dist-info"
    info.mkdir()
    (site / f"{name}.py").write_text("whole = True\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "INSTALLER").write_text("pip\n")
    listed = (f"{info.name}/{file},,\n" for file in ("METADATA", "INSTALLER", "RECORD"))
    (info / "RECORD").write_text(f"{name}.py,,13\n{''.join(listed)}")


def _wanted(project: Path, **changes: object) -> Wanted:
    given = {"requirement": str(project), "editable": True, "flavour": "cpu", **changes}
    return Wanted(**given)  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "sdsetup"\ndependencies = ["typer"]\n')
    return folder


def _finish(environment: Path, wanted: Wanted) -> None:
    (site,) = (environment / "lib").glob("python3.*/site-packages")
    environment_maker._write_stamp(environment, wanted, site)


def test_a_checkout_keeps_its_environment_beside_pyproject() -> None:
    assert places.checkout() == ROOT
    if "sdsetup" not in places.distributions(Path(sys.prefix)):
        assert places.environment_folder() == ROOT / ".venv"


def test_a_finished_environment_is_ready_and_nothing_is_started(tmp_path: Path, project: Path) -> None:
    environment = _environment(tmp_path / "environment", "typer-1.0")
    wanted = _wanted(project)
    assert not environment_maker.is_ready(environment, wanted)
    _finish(environment, wanted)
    assert environment_maker.is_ready(environment, wanted)
    environment_maker.prepare(environment, wanted)


def test_a_removed_or_changed_package_makes_it_unready(tmp_path: Path, project: Path) -> None:
    environment = _environment(tmp_path / "environment", "typer-1.0")
    wanted = _wanted(project)
    _finish(environment, wanted)
    (site,) = (environment / "lib").glob("python3.*/site-packages")
    (site / "typer-1.0.dist-info").rename(site / "typer-1.1.dist-info")
    assert not environment_maker.is_ready(environment, wanted)
    assert environment_maker.state(environment) == "unfinished"


def test_new_requirements_flavours_or_groups_make_it_unready(tmp_path: Path, project: Path) -> None:
    environment = _environment(tmp_path / "environment", "typer-1.0")
    _finish(environment, _wanted(project))
    assert not environment_maker.is_ready(environment, _wanted(project, groups=("dev",)))
    assert not environment_maker.is_ready(environment, _wanted(project, flavour="cuda"))
    (project / "pyproject.toml").write_text('[project]\nname = "sdsetup"\ndependencies = ["rich"]\n')
    assert not environment_maker.is_ready(environment, _wanted(project))


def test_a_setting_of_a_tool_does_not_make_it_unready(tmp_path: Path, project: Path) -> None:
    environment = _environment(tmp_path / "environment", "typer-1.0")
    _finish(environment, _wanted(project))
    with (project / "pyproject.toml").open("a") as file:
        file.write("[tool.ruff]\nline-length = 99\n")
    assert environment_maker.is_ready(environment, _wanted(project))


def test_changed_pins_make_it_unready(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = _environment(tmp_path / "environment", "typer-1.0")
    _finish(environment, _wanted(project))
    other = tmp_path / "constraints.txt"
    other.write_text("typer==9.9\n")
    monkeypatch.setattr(known_good, "CONSTRAINTS", other)
    assert not environment_maker.is_ready(environment, _wanted(project))


def test_states_are_told_apart(tmp_path: Path) -> None:
    assert environment_maker.state(tmp_path / "none") == "absent"
    environment = _environment(tmp_path / "environment")
    assert environment_maker.state(environment) == "unfinished"
    places.python_of(environment).unlink()
    assert environment_maker.state(environment) == "broken"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, project: Path) -> None:
    folder = tmp_path / ".venv"
    folder.mkdir()
    (folder / "precious").write_text("x")
    with pytest.raises(SetupError, match="was not made by sdsetup"):
        environment_maker.prepare(folder, _wanted(project))
    assert (folder / "precious").read_text() == "x"


def test_a_torn_stamp_counts_as_none(tmp_path: Path, project: Path) -> None:
    environment = _environment(tmp_path / "environment", "typer-1.0")
    _finish(environment, _wanted(project))
    (environment / "sdsetup-install.json").write_text("{")
    assert not environment_maker.is_ready(environment, _wanted(project))


# Prepares an environment as `install` does, with pip replaced by a program that waits to be let go.
_PREPARE = """
import sys
from pathlib import Path
from sdsetup import __version__
from sdsetup.bootstrap import environment_maker, places, installer
from sdsetup.bootstrap.installer import InstallAction, Wanted

work = Path(sys.argv[1])
install = '''
import sys, time
from pathlib import Path
work, site = Path(sys.argv[1]), Path(sys.argv[2])
with (work / "log").open("a") as log:
    log.write("begin ")
while not (work / "go").exists():
    time.sleep(0.02)
info = site / "typer-1.0.dist-info"
info.mkdir()
(info / "METADATA").write_text("Metadata-Version: 2.1")
(info / "INSTALLER").write_text("pip")
(info / "RECORD").write_text("typer-1.0.dist-info/METADATA,," + chr(10) + "typer-1.0.dist-info/INSTALLER,,")
with (work / "log").open("a") as log:
    log.write("end ")
'''

def actions(python, wanted, *found):
    (site,) = (work / "environment/lib").glob("python3.*/site-packages")
    return [InstallAction(label="installing", argv=(sys.executable, "-c", install, str(work), str(site)))]

installer.install_actions = actions
installer.restore_pip = lambda python: []
installer.upgrade_pip = lambda python: InstallAction(label="no pip", argv=(sys.executable, "-c", ""))
wanted = Wanted(requirement=str(work / "project"), editable=True, flavour="cpu", extras=())
environment_maker.prepare(work / "environment", wanted)
assert environment_maker.is_ready(work / "environment", wanted)
"""


Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start_preparing(tmp_path: Path) -> Iterator[Start]:
    _environment(tmp_path / "environment")
    with ExitStack() as ends:

        def start() -> subprocess.Popen[str]:
            process = ends.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _PREPARE, str(tmp_path)],
                    cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                    text=True,
                )
            )  # fmt: skip
            ends.callback(process.kill)
            return process

        yield start
        (tmp_path / "go").touch()  # what a killed one started ends too


def _until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return
    pytest.fail(f"{words!r} was never said: {''.join(seen)}")


def test_of_two_installs_at_once_one_works_and_the_other_finds_it_done(
    tmp_path: Path, project: Path, start_preparing: Start
) -> None:
    first = start_preparing()
    _until(first, "installing")
    second = start_preparing()
    _until(second, "waiting for it")
    (tmp_path / "go").touch()
    for process in (first, second):
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert (tmp_path / "log").read_text() == "begin end "


def test_an_install_that_is_killed_holds_up_nobody(project: Path, start_preparing: Start) -> None:
    first = start_preparing()
    _until(first, "installing")
    second = start_preparing()
    _until(second, "waiting for it")
    first.kill()
    first.communicate(timeout=60)
    _until(second, "installing")


@pytest.fixture
def bare_checkout(tmp_path: Path) -> tuple[Path, str]:
    """A copy of the project without an environment, and a Python without any package."""
    checkout = tmp_path / "with space and \u5199\u771f"
    for package in ("sdsetup", "conversions"):
        shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    return checkout, str(places.python_of(_environment(tmp_path / "bare")))


def _run(place: tuple[Path, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    checkout, python = place
    return subprocess.run(
        [python, "-m", "sdsetup", *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("arguments", [["convert", "demo"], ["generate"], []])
def test_a_bare_python_says_what_to_type(bare_checkout: tuple[Path, str], arguments: list[str]) -> None:
    answer = _run(bare_checkout, *arguments)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "-m sdsetup install" in answer.stderr


def test_a_bare_clone_leads_from_its_help_to_install(bare_checkout: tuple[Path, str]) -> None:
    checkout, _ = bare_checkout
    shutil.copytree(ROOT / "docs" / "reference", checkout / "docs" / "reference")
    for arguments in ([], ["--help"]):
        answer = _run(bare_checkout, *arguments)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert "-m sdsetup install\n" in answer.stdout
        assert all(f"  {verb.name} " in answer.stdout for verb in VERBS)
    assert "--for install|convert|generate" in _run(bare_checkout, "doctor", "-h").stdout
    mistyped = _run(bare_checkout, "install", "--lena")
    assert mistyped.returncode == 2
    hint = mistyped.stderr.partition("-m sdsetup ")[2].partition(" lists")[0]
    answer = _run(bare_checkout, *hint.split())
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "--lean" in answer.stdout


def test_a_bare_python_says_its_version_too(bare_checkout: tuple[Path, str]) -> None:
    answer = _run(bare_checkout, "--version", "--verbose")
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"sdsetup {__version__}\n")
    assert f"source {bare_checkout[0]}\n" in answer.stdout


def test_the_doctor_runs_on_a_bare_python(bare_checkout: tuple[Path, str]) -> None:
    answer = _run(bare_checkout, "doctor", "--json", "--offline")
    found = {finding["id"]: finding for finding in json.loads(answer.stdout)["findings"]}
    assert answer.returncode == 1
    assert found["packages.core"]["status"] == "failure"
    assert found["system.os"]["status"] == "ok"
    assert not [each for each in found.values() if "itself failed" in each["evidence"]]
    assert not [each for each in found.values() if "reading it failed" in each["evidence"]]


def test_usage_errors_of_the_bare_doctor_exit_with_2(bare_checkout: tuple[Path, str]) -> None:
    for wrong in (["--for", "fly"], ["--only", "nothing"], ["--no-such-option"]):
        assert _run(bare_checkout, "doctor", *wrong).returncode == 2


def test_a_flavour_that_does_not_exist_is_refused_before_anything_is_made(
    bare_checkout: tuple[Path, str],
) -> None:
    answer = _run(bare_checkout, "install", "--flavour", "directml")
    assert answer.returncode == 1
    assert "directml does not exist for this system" in answer.stderr
    assert not (bare_checkout[0] / ".venv").exists()


def test_once_there_is_an_environment_a_bare_python_goes_on_in_it(bare_checkout: tuple[Path, str]) -> None:
    environment = _environment(bare_checkout[0] / ".venv")
    (site,) = (environment / "lib").glob("python3.*/site-packages")
    (site / "typer.py").write_text("raise SystemExit('went on in the environment')\n")
    assert "went on in the environment" in _run(bare_checkout, "generate").stderr


def test_the_doctor_looks_at_the_virtual_environment_it_is_started_in(
    bare_checkout: tuple[Path, str],
) -> None:
    checkout, python = bare_checkout
    _environment(checkout / ".venv")
    answer = _run(bare_checkout, "doctor", "--only", "python.environment", "--json")
    assert python in json.loads(answer.stdout)["findings"][0]["evidence"]


@pytest.mark.parametrize("old", ["python3.9", "python3.10"])
def test_an_old_python_is_told_which_one_to_use(old: str) -> None:
    versions = Path.home() / ".pyenv" / "versions"
    kept = [str(path) for path in versions.glob(f"{old.removeprefix('python')}.*/bin/{old}")]
    found = next(iter(kept), shutil.which(old))
    if found is None or subprocess.run([found, "-V"], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no {old}")
    answer = subprocess.run(
        [found, "-m", "sdsetup", "install"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "sdsetup needs CPython 3.11" in answer.stderr
    assert "Traceback" not in answer.stderr

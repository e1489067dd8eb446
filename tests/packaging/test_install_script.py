"""install.sh under real shells, in a home of its own; what it cannot find it names."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.packaging.building import ROOT

if sys.platform == "win32":
    pytest.skip("a script of POSIX shells", allow_module_level=True)

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
TOOLS = ("uname", "mkdir", "grep", "dirname", "cat")


def _environment(home: Path, **more: str) -> dict[str, str]:
    kept = ("PATH", "PIP_CERT", "PIP_INDEX_URL", "SSL_CERT_FILE", "LANG")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"HOME": str(home), **more}


def _run(
    shell: str, *arguments: str, environment: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    program = [str(shutil.which(shell)), *(["sh"] if shell == "busybox" else [])]
    return subprocess.run(
        [*program, str(ROOT / "install.sh"), *arguments], cwd=cwd, env=environment,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_is_found_by_the_next_terminal_and_a_second_run_changes_nothing(
    shell: str, tagged: Path, tmp_path: Path
) -> None:
    home = tmp_path / "Ümläut home"
    home.mkdir()
    (home / ".bashrc").write_text("alias x=y")
    (home / ".config" / "pip").mkdir(parents=True)
    elsewhere = f"user = true\ntarget = {tmp_path / 'elsewhere'}\n"
    (home / ".config" / "pip" / "pip.conf").write_text(f"[install]\n{elsewhere}")
    # The wheel alone, without what it needs: its packages are another test's matter.
    environment = _environment(
        home, SDSETUP_FROM=str(tagged), SDSETUP_PYTHON=sys.executable, PIP_NO_DEPS="1", PIP_USER="1"
    )
    for _ in range(2):
        answer = _run(shell, "--command-only", environment=environment, cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
    command = home / ".local" / "bin" / "sdsetup"
    assert str(command) in answer.stderr
    assert command.readlink() == home / ".local" / "share" / "sdsetup" / "venv" / "bin" / "sdsetup"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Ümläut home"]
    assert (home / ".profile").read_text().count("added by sdsetup") == 1
    assert (home / ".bashrc").read_text().startswith("alias x=y\nexport PATH=")

    line = f"{environment['PATH']}"
    found = subprocess.run(
        [str(shutil.which("bash")), "-lc", "sdsetup --version"], cwd=tmp_path,
        env={"HOME": str(home), "PATH": line}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == "sdsetup 9.8.7\n", found.stderr


def _hear_ctrl_c() -> None:
    """Undo that programs in the background of a script, as these tests may be, are deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("shell", "stage"), [("dash", "Making an environment"), ("bash", "Installing the command")]
)
def test_ctrl_c_is_told_and_the_next_run_goes_on(
    shell: str, stage: str, tagged: Path, tmp_path: Path
) -> None:
    if shell not in SHELLS:
        pytest.skip(f"there is no {shell}")
    environment = _environment(
        tmp_path, SDSETUP_FROM=str(tagged), SDSETUP_PYTHON=sys.executable, PIP_NO_DEPS="1"
    )
    with subprocess.Popen(
        [shell, str(ROOT / "install.sh"), "--command-only"], cwd=tmp_path, env=environment,
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=_hear_ctrl_c,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while stage not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.3)  # until the program that does it has begun
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.endswith("\nInterrupted. Run the same command to go on.\n")
    assert "Traceback" not in said
    assert "error: the" not in said
    answer = _run(shell, "--command-only", environment=environment, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / ".local" / "bin" / "sdsetup").exists()


def test_a_command_of_that_name_is_left_alone(tagged: Path, tmp_path: Path) -> None:
    place = tmp_path / ".local" / "bin"
    place.mkdir(parents=True)
    (place / "sdsetup").write_text("precious")
    environment = _environment(
        tmp_path, SDSETUP_FROM=str(tagged), SDSETUP_PYTHON=sys.executable, PIP_NO_DEPS="1"
    )
    answer = _run("bash", "--command-only", environment=environment, cwd=tmp_path)
    assert (place / "sdsetup").read_text() == "precious"
    assert "was not put there by sdsetup" in answer.stderr
    assert str(tmp_path / ".local/share/sdsetup/venv/bin/sdsetup") in answer.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_python_it_says_what_to_type(shell: str, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in (*TOOLS, "apt-get"):
        (tools / tool).symlink_to(shutil.which(tool) or "/bin/true")
    answer = _run(shell, environment={"HOME": str(tmp_path), "PATH": str(tools)}, cwd=tmp_path)
    assert answer.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 with venv is needed" in answer.stderr
    assert "next: sudo apt install python3 python3-venv" in answer.stderr


def test_what_is_no_bundle_is_told(tagged: Path, tmp_path: Path) -> None:
    (tmp_path / "no bundle").mkdir()
    environment = _environment(tmp_path, SDSETUP_PYTHON=sys.executable)
    answer = _run("bash", "--offline", "no bundle", environment=environment, cwd=tmp_path)
    assert answer.returncode == 1
    assert "no bundle is no bundle: it has no folder wheels" in answer.stderr


@pytest.mark.robustness
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shell", SHELLS)
def test_from_an_empty_home_to_the_first_image(shell: str, tagged: Path, tmp_path: Path) -> None:
    environment = _environment(tmp_path, SDSETUP_FROM=str(tagged), SDSETUP_PYTHON=sys.executable)
    answer = _run(shell, "--lean", "--yes", environment=environment, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert list((tmp_path / "images").glob("*.png"))

"""Ctrl-C as it is typed: a real terminal sends it to the command and to all of its processes."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdsetup.cli import interruption
from tests.hub_server import Account, Fault, HubServer, Repo
from tests.hub_server.checkpoint import checkpoint_files
from tests.hub_server.client import Machine
from tests.hub_server.faults import stall, status
from tests.sdsetup import toy_package

if sys.platform == "win32":
    pytest.skip("types into a POSIX terminal", allow_module_level=True)

import pty

_LIMIT_SECONDS = 120
_SHOW, _HIDE = "\x1b[?25h", "\x1b[?25l"


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    screen: str

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.screen).replace("\r", "")


def type_ctrl_c(machine: Machine, arguments: list[str], *, when: str, **extra: str) -> Ended:
    """Run ``sdsetup ARGUMENTS`` in a terminal and type Ctrl-C once ``when`` can be read there."""
    return type_ctrl_c_in(machine, ["-m", "sdsetup", *arguments], [when], **extra)


def type_ctrl_c_in(machine: Machine, arguments: list[str], words: Sequence[str], **extra: str) -> Ended:
    """Run Python in a terminal and type Ctrl-C once for each of some words, when it can be read there."""
    machine.home.mkdir(parents=True, exist_ok=True)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(machine.home)
        environment = machine.environment(TERM="xterm", **extra)
        os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606
    seen, waited_for, began = "", list(words), time.monotonic()
    while time.monotonic() - began < _LIMIT_SECONDS:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            seen += os.read(terminal, 65536).decode("utf-8", "replace")
        except OSError:  # the other end is closed
            break
        if waited_for and waited_for[0] in seen:
            time.sleep(0.3)
            os.write(terminal, b"\x03")
            del waited_for[0]
    _, outcome = os.waitpid(pid, 0)
    os.close(terminal)
    assert not waited_for, seen
    return Ended(code=os.waitstatus_to_exitcode(outcome), screen=seen)


def assert_ended_well(ended: Ended, *, goes_on: bool = False) -> None:
    assert ended.code == 130, ended.text
    again = "go on" if goes_on else "start again"
    assert f"Interrupted. Run the same command to {again}." in ended.text
    assert "Traceback" not in ended.text
    assert "Error" not in ended.text
    assert ended.screen.rfind(_SHOW) >= ended.screen.rfind(_HIDE)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub


@pytest.fixture
def machine(server: HubServer, tmp_path: Path) -> Iterator[Machine]:
    with Machine(endpoint=server.endpoint, home=tmp_path / "home", stall_seconds=5) as user:
        yield user


def test_in_generate_no_image_is_written_and_it_says_so(machine: Machine, tmp_path: Path) -> None:
    package = toy_package.write(tmp_path / "package")
    size = ["--steps", "900", "--width", "1024", "--height", "1024", "--images", "4"]
    ended = type_ctrl_c(machine, ["generate", str(package), "a horse", *size], when="making the image")
    assert_ended_well(ended)
    assert "No image was written." in ended.text
    assert list(machine.home.glob("*.png")) == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=lambda each: each.name)
def test_the_preview_of_a_run_that_was_ended_makes_way_for_the_next_run_s(
    machine: Machine, tmp_path: Path, end: signal.Signals
) -> None:
    package = toy_package.write(tmp_path / "package")
    machine.home.mkdir(parents=True)
    arguments = ["generate", str(package), "a horse", "-o", "x.png", "--preview", "1"]
    arguments += ["--width", "512", "--height", "512", "--steps"]
    argv = [sys.executable, "-m", "sdsetup", *arguments]
    preview = machine.home / "x-preview.png"
    with subprocess.Popen(
        [*argv, "900"], cwd=machine.home, env=machine.environment(), stderr=subprocess.PIPE, text=True
    ) as ended:
        began = time.monotonic()
        while not preview.exists() and time.monotonic() - began < _LIMIT_SECONDS:
            time.sleep(0.05)
        ended.send_signal(end)
        said = ended.communicate()[1]
    assert preview.is_file()
    if end == signal.SIGINT:
        assert "The last preview is x-preview.png; a later run" in said
    again = subprocess.run(
        [*argv, "2"], cwd=machine.home, env=machine.environment(), capture_output=True, text=True, check=False
    )
    assert "previews: x-preview.png" in again.stderr
    assert [path.name for path in machine.home.glob("*.png")] == ["x.png"]


def test_while_native_code_runs_it_is_heard_and_a_second_one_ends_it(machine: Machine) -> None:
    """A hash of many rounds: hours in one call, during which Python runs no handler of signals."""
    program = (
        "import hashlib, threading; from sdsetup.cli import interruption, output\n"
        "with interruption.answered():\n"
        "    threading.Timer(1, output.say, ['begun']).start()\n"
        "    hashlib.pbkdf2_hmac('sha512', b'', b'', 2**31 - 1)"
    )
    ended = type_ctrl_c_in(machine, ["-c", program], ["begun", "Ctrl-C again stops at once."])
    assert ended.code == 130


def test_a_second_one_takes_the_bars_away(machine: Machine) -> None:
    program = (
        "import hashlib; from conversions.events import Started\n"
        "from sdsetup.cli import interruption, progress\n"
        "with interruption.answered(), progress.listening() as listener:\n"
        "    listener(Started(task='t', label='hashing', total=4, unit='steps'))\n"
        "    hashlib.pbkdf2_hmac('sha512', b'', b'', 2**31 - 1)"
    )
    ended = type_ctrl_c_in(machine, ["-c", program], ["hashing", "Ctrl-C again stops at once."])
    assert ended.code == 130
    assert ended.text.endswith("Stopped.\n")
    assert ended.screen.rfind(_SHOW) > ended.screen.rfind(_HIDE)


def test_what_is_said_after_a_question_begins_a_line(machine: Machine) -> None:
    program = (
        "from sdsetup.bootstrap import console\n"
        "try:\n    console.ask('Go on?', yes=False)\n"
        "except KeyboardInterrupt:\n    console.say('Interrupted.')"
    )
    ended = type_ctrl_c_in(machine, ["-c", program], ["Go on?"])
    assert ended.text.endswith("\nInterrupted.\n")


def test_where_python_runs_it_raises_at_once_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interruption.answered():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(_LIMIT_SECONDS)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_convert_what_is_finished_is_kept_where_it_says(machine: Machine, tiny_checkpoint: Path) -> None:
    arguments = ["convert", str(tiny_checkpoint), "-o", "package", "--target", "cpu", "--retrace"]
    ended = type_ctrl_c(machine, arguments, when="tracing")
    assert_ended_well(ended, goes_on=True)
    kept = machine.home / ".package.partial"
    assert (f"kept in {kept.name}" in ended.text) == kept.exists()
    assert not (machine.home / "package").exists()


def test_in_download_what_came_is_kept(server: HubServer, machine: Machine) -> None:
    server.add(Repo(repo_id="acme/large", files=checkpoint_files(unet_bytes=30_000_000)))
    server.faults.append(Fault(where="GET /cdn/*", action=stall(after=5_000_000, seconds=60), times=-1))
    ended = type_ctrl_c(machine, ["download", "acme/large"], when="downloading")
    assert_ended_well(ended, goes_on=True)
    assert "What was downloaded is kept." in ended.text
    partial = [path for path in machine.storage("acme/large").rglob("*.incomplete") if path.stat().st_size]
    assert partial


def test_in_login_nothing_is_saved(server: HubServer, machine: Machine) -> None:
    server.accounts.append(Account(name="ann", token="hf_AnnsToken1234567"))  # noqa: S106
    server.faults.append(
        Fault(
            where="POST /oauth/token",
            action=status(400, {}, b'{"error": "authorization_pending"}'),
            times=-1,
        )
    )
    ended = type_ctrl_c(machine, ["login"], when="confirm the code", BROWSER="true")
    assert_ended_well(ended)
    assert not (machine.home / "hf" / "token").exists()


def test_at_a_question_for_a_token_the_terminal_shows_letters_again(machine: Machine) -> None:
    ended = type_ctrl_c(machine, ["login", "--token-stdin"], when="Token (it stays unseen)")
    assert_ended_well(ended)


def test_while_the_program_starts(machine: Machine, tmp_path: Path) -> None:
    """Before any word was printed: a verb that imports much, interrupted at several moments."""
    for pause in (0.05, 0.2, 0.5, 0.9):
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            arguments = [sys.executable, "-m", "sdsetup", "generate", str(tmp_path / "none"), "x"]
            os.execve(sys.executable, arguments, machine.environment(TERM="xterm"))  # noqa: S606
        time.sleep(pause)
        os.write(terminal, b"\x03")
        seen = b""
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
        os.waitpid(pid, 0)
        os.close(terminal)
        # Until main runs, while the package itself is imported, Python reports.
        if b"Traceback" in seen:
            assert b", in main" not in seen, (pause, seen.decode())

"""``sdsetup install`` of a gated model, at a terminal: the log-in is part of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sdsetup import demo
from tests.hub_server import Account, HubServer, Repo
from tests.hub_server.client import Machine

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals", allow_module_level=True)

import pty

TOKEN = "hf_ATokenOfAnn"  # noqa: S105
# The second half of `install`, which runs in the finished environment.
_INSTALL = "import sys; from sdsetup.cli.app import main; sys.exit(main(['install', *sys.argv[1:]]))"


def _install(user: Machine, model: str, answer: str) -> tuple[int, str]:
    """Run it with a terminal, answer its question, and return its status and what it showed."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(user.home)
        argv = [sys.executable, "-c", _INSTALL, model]
        os.execve(argv[0], argv, user.environment(BROWSER="true"))  # noqa: S606 - no shell is wanted
    shown = b""
    while True:
        try:
            more = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not more:
            break
        before, shown = shown, shown + more
        if b"[y/N]" in shown and b"[y/N]" not in before:
            os.write(terminal, answer.encode() + b"\n")
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(terminal)
    return status, shown.decode()


@pytest.mark.parametrize("answer", [pytest.param("y", marks=pytest.mark.robustness), "n"])
def test_a_gated_model_asks_for_a_log_in_and_goes_on(answer: str, tmp_path: Path) -> None:
    with HubServer() as server, Machine(endpoint=server.endpoint, home=tmp_path / "home") as user:
        user.home.mkdir()
        server.accounts.append(Account(name="ann", token=TOKEN))
        files = _files(demo.checkpoint_path())
        server.add(Repo(repo_id="acme/gated", files=files, gated="auto", readers=("ann",)))
        server.device_answer = {"access_token": TOKEN, "refresh_token": "x", "expires_in": 2592000}
        status, shown = _install(user, "acme/gated", answer)
        saved = (user.home / "hf" / "token").exists()
    assert "only after accepting its terms" in shown
    assert saved == (answer == "y")
    assert status == (0 if saved else 1), shown
    assert list(user.home.glob("images/*.png")) != [] or not saved


def _files(checkpoint: Path) -> dict[str, bytes]:
    files = (path for path in checkpoint.rglob("*") if path.is_file())
    return {path.relative_to(checkpoint).as_posix(): path.read_bytes() for path in files}

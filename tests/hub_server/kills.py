"""Killing a conversion of a model on the Hub, and looking at what the next run does."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.hub_server.client import Machine
from tests.hub_server.repos import Repo
from tests.hub_server.server import HubServer


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one killed conversion and of the run after it.

    Attributes:
        moment_seconds: When it was killed, after its start.
        finished_first: Whether it was already over by then.
        state: What the kill left: how many files were whole, and whether a package was begun.
        code: Exit status of the next run.
        fetched_again: Files that were whole before the kill and whose content was asked for again.
        identical: Whether the package is, byte for byte, the one of an undisturbed run.
        complaint: What the next run said when it failed.
    """

    moment_seconds: float
    finished_first: bool
    state: str
    code: int
    fetched_again: tuple[str, ...]
    identical: bool
    complaint: str

    @property
    def right(self) -> bool:
        return self.code == 0 and self.identical and not self.fetched_again


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash every file of a package."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_and_run_again(
    hub: HubServer,
    machine: Machine,
    repo: Repo,
    arguments: list[str],
    moment_seconds: float,
    undisturbed: dict[str, str],
) -> Outcome:
    """Convert, kill the program and its children after a while, convert again.

    Args:
        hub: The server.
        machine: A user whose cache is emptied first.
        repo: The model.
        arguments: Of ``sdsetup convert``, without ``--output``.
        moment_seconds: When to kill.
        undisturbed: Fingerprint of the package as it must be.
    """
    output = machine.home / "package"
    shutil.rmtree(machine.storage(repo.repo_id), ignore_errors=True)
    for left in machine.home.glob("*package*"):
        shutil.rmtree(left, ignore_errors=True)
    command = ["convert", repo.repo_id, *arguments, "--output", str(output)]
    process = machine.start(*command)
    try:
        process.communicate(timeout=moment_seconds)
        finished_first = True
    except subprocess.TimeoutExpired:
        finished_first = False
        _kill_with_children(process)
    whole = _whole_files(machine, repo)
    begun = (machine.home / ".package.partial").exists()
    if finished_first:
        shutil.rmtree(output)
    hub.requests.clear()
    done = machine.run_cold(*command, *(["--overwrite"] if output.exists() else []))
    asked = {entry.path for entry in hub.requests if entry.method == "GET"}
    again = tuple(name for name in whole if any(_is_content_of(path, repo, name) for path in asked))
    return Outcome(
        moment_seconds=round(moment_seconds, 3),
        finished_first=finished_first,
        state=f"{len(whole)} files whole, package {'begun' if begun else 'not begun'}",
        code=done.code,
        fetched_again=again,
        identical=done.code == 0 and fingerprint(output) == undisturbed,
        complaint=done.stderr[-500:] if done.code else "",
    )


def _kill_with_children(process: subprocess.Popen[str]) -> None:
    import psutil

    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    process.kill()
    for pid in family[1:]:
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            continue
    process.communicate()
    if sys.platform == "win32":
        time.sleep(0.2)


def _whole_files(machine: Machine, repo: Repo) -> list[str]:
    folder = machine.storage(repo.repo_id) / "snapshots" / repo.head
    return [name for name in repo.commits[repo.head] if (folder / name).is_file()]


def _is_content_of(path: str, repo: Repo, name: str) -> bool:
    if repo.is_large(name):
        return path == f"/cdn/{repo.repo_id}/{repo.etag(repo.head, name)}"
    return path == f"/{repo.repo_id}/resolve/{repo.head}/{name}"

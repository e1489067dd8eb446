"""What a listener hears of a download, byte by byte, and what a download leaves beside its files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conversions.events import Advanced, Event
from sdsetup.hub.download import _Ticker
from tests.hub_server import Fault, HubServer, Repo, faults
from tests.hub_server.client import Machine

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
CONTENT = bytes(range(256)) * 17_000  # 4.4 MB
FILES = {WEIGHTS: CONTENT, "unet/config.json": b'{"a": 1}', "empty.json": b""}
FETCH = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from sdsetup import hub
from sdsetup.errors import SetupError
from sdsetup.hub.download import fetch
model = hub.resolve({repo!r})
names = {names!r}
events = []
folder = Path({folder!r}) if {folder!r} else None
code = ""
try:
    root = fetch(
        model,
        [file for file in model.files if file.name in names],
        local_dir=folder,
        listener=lambda event: events.append([type(event).__name__, asdict(event)]),
    )
except SetupError as error:
    root, code = "", error.code
print(json.dumps([str(root), code, events]))
"""


@pytest.fixture
def user(hub: HubServer, tmp_path: Path) -> Iterator[Machine]:
    with Machine(endpoint=hub.endpoint, home=tmp_path) as machine:
        yield machine


@pytest.fixture
def repo(hub: HubServer, request: pytest.FixtureRequest) -> Repo:
    return hub.add(Repo(repo_id=f"acme/{request.node.name.partition('[')[0][:60]}", files=FILES))


def fetched(
    user: Machine, repo: Repo, *names: str, folder: Path | None = None, **extra: str
) -> tuple[Path, str, list[tuple[str, dict[str, Any]]]]:
    """Download files in a process of its own; return their folder, the error's code and what was heard."""
    script = FETCH.format(repo=repo.repo_id, names=names or tuple(FILES), folder=str(folder or ""))
    root, code, events = json.loads(user.run_script(script, **extra))
    return Path(root), code, events


def heard(events: list[tuple[str, dict[str, Any]]], kind: str) -> list[dict[str, Any]]:
    return [event for name, event in events if name == kind]


def blob(user: Machine, repo: Repo, name: str) -> Path:
    return user.storage(repo.repo_id) / "blobs" / repo.etag(repo.head, name)


def slowly(hub: HubServer, repo: Repo) -> None:
    """Send the weights with pauses, a megabyte in a fifth of a second, so that there is something to tell."""
    drip = faults.drip(2**17, 0.025, len(CONTENT))
    hub.faults.append(Fault(where=f"GET /cdn/{repo.repo_id}/*", action=drip, times=-1))


def test_the_bytes_of_all_files_are_counted_up_to_their_sum(
    hub: HubServer, user: Machine, repo: Repo
) -> None:
    slowly(hub, repo)
    root, _, events = fetched(user, repo)
    total = sum(map(len, FILES.values()))
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == set(FILES)
    (started,), (finished,) = heard(events, "Started"), heard(events, "Finished")
    assert started == {
        "task": "download",
        "label": f"downloading 3 files of {repo.repo_id}",
        "total": total,
        "unit": "bytes",
    }
    done = [event["done"] for event in heard(events, "Advanced")]
    assert len(done) > 3
    assert done == sorted(done)
    assert 0 < done[0] < done[-1] <= total
    assert all(event["task"] == "download" for _, event in events)
    assert finished["note"].startswith("4.2 MiB at ")
    assert finished["note"].endswith("/s")
    assert not finished["note"].endswith(" at 0 B/s")


def test_one_file_is_named(user: Machine, repo: Repo) -> None:
    root, _, events = fetched(user, repo, "unet/config.json")
    assert (root / "unet/config.json").read_bytes() == FILES["unet/config.json"]
    assert heard(events, "Started")[0]["label"] == f"downloading unet/config.json of {repo.repo_id}"
    assert heard(events, "Started")[0]["total"] == 8


def test_nothing_is_told_where_nothing_is_missing(hub: HubServer, user: Machine, repo: Repo) -> None:
    first, _, _ = fetched(user, repo)
    hub.requests.clear()
    again, _, events = fetched(user, repo)
    assert (again, events) == (first, [])
    assert not hub.paths("/resolve/|/cdn/")


def test_what_an_earlier_run_left_counts_as_done_and_not_as_speed(
    hub: HubServer, user: Machine, repo: Repo
) -> None:
    slowly(hub, repo)
    partial = blob(user, repo, WEIGHTS)
    partial = partial.with_name(f"{partial.name}.sdsetup.incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:1_500_000])
    hub.sent_bytes = 0
    root, _, events = fetched(user, repo, WEIGHTS)
    assert (root / WEIGHTS).read_bytes() == CONTENT
    assert len(CONTENT) - 1_500_000 <= hub.sent_bytes < len(CONTENT) - 1_400_000
    done = [event["done"] for event in heard(events, "Advanced")]
    assert 1_500_000 < done[0] <= done[-1] <= len(CONTENT)
    assert not partial.exists()


def test_bad_bytes_of_an_earlier_run_are_taken_back(hub: HubServer, user: Machine, repo: Repo) -> None:
    slowly(hub, repo)
    partial = blob(user, repo, WEIGHTS)
    partial = partial.with_name(f"{partial.name}.sdsetup.incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(1_500_000))
    root, _, events = fetched(user, repo, WEIGHTS)
    assert (root / WEIGHTS).read_bytes() == CONTENT
    done = [event["done"] for event in heard(events, "Advanced")]
    assert done != sorted(done)  # once it went back
    assert max(done) <= len(CONTENT)
    assert not partial.exists()


def test_a_file_that_is_altered_twice_is_not_kept(hub: HubServer, user: Machine, repo: Repo) -> None:
    hub.faults.append(Fault(where=f"GET /cdn/{repo.repo_id}/*", action=faults.flip(5), times=-1))
    root, code, _ = fetched(user, repo, WEIGHTS)
    assert (root, code) == (Path(), "hub.corrupt")
    assert len(hub.paths(f"GET /cdn/{repo.repo_id}")) == 2
    assert not any(path.stat().st_size for path in user.storage(repo.repo_id).rglob("*") if path.is_file())


def test_a_file_that_fails_stops_the_others(hub: HubServer, user: Machine, repo: Repo) -> None:
    slowly(hub, repo)
    refuse = faults.status(404, {"X-Error-Code": "EntryNotFound"})
    hub.faults.append(
        Fault(where=f"HEAD /{repo.repo_id}/resolve/*/unet/config.json", action=refuse, times=-1)
    )
    hub.sent_bytes = 0
    _, code, events = fetched(user, repo)
    assert code
    assert not heard(events, "Finished")
    assert hub.sent_bytes < len(CONTENT)
    assert not blob(user, repo, WEIGHTS).exists()
    hub.faults.clear()
    root, code, _ = fetched(user, repo)
    assert code == ""
    assert (root / WEIGHTS).read_bytes() == CONTENT


def test_a_folder_of_choice_holds_the_files_alone(hub: HubServer, user: Machine, repo: Repo) -> None:
    folder = user.home / "chosen"
    root, _, _ = fetched(user, repo, folder=folder)
    assert root == folder
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == set(FILES)
    assert not list(user.storage(repo.repo_id).glob("refs/*"))
    # The same sizes with other contents are not taken for the files.
    (folder / WEIGHTS).write_bytes(bytes(len(CONTENT)))
    (folder / "unet/config.json").write_bytes(b'{"a": 2}')
    _, _, events = fetched(user, repo, folder=folder)
    assert heard(events, "Started")[0]["label"] == f"downloading 2 files of {repo.repo_id}"
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert fetched(user, repo, folder=folder)[2] == []


def test_bytes_are_told_now_and_then() -> None:
    """What was told a moment ago is not told again; what was told long ago is, with all bytes."""
    heard: list[Event] = []
    ticker = _Ticker(heard.append)
    ticker._told = math.inf
    ticker.add(5)
    assert heard == []
    ticker._told = -math.inf
    ticker.add(7, received=False)
    ticker.add(-2, received=False)
    assert heard == [Advanced(task="download", done=12)]
    assert ticker.received == 5
    ticker._told = -math.inf
    ticker.add(1)
    assert heard[1:] == [Advanced(task="download", done=11)]
    assert ticker.received == 6
    assert ticker.seconds > 0


def test_the_cache_remembers_which_commit_a_branch_meant(user: Machine, repo: Repo) -> None:
    fetched(user, repo, "empty.json")
    assert (user.storage(repo.repo_id) / "refs" / "main").read_text("utf-8") == repo.head


HOLD = """
import sys, time
from pathlib import Path
from huggingface_hub.utils import WeakFileLock
path = Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
with WeakFileLock(path):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("downloads", [False, True])
def test_another_program_s_lock_is_waited_for_and_said(
    hub: HubServer, user: Machine, repo: Repo, downloads: bool
) -> None:
    hub.requests.clear()
    locks = user.cache / ".locks" / user.storage(repo.repo_id).name
    lock = locks / f"{repo.etag(repo.head, WEIGHTS)}.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    script = FETCH.format(repo=repo.repo_id, names=(WEIGHTS,), folder="")
    waiting = user._popen([sys.executable, "-c", script])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        assert not blob(user, repo, WEIGHTS).exists()
        if downloads:  # the other program leaves the whole file
            whole = user.storage(repo.repo_id) / "snapshots" / repo.head / WEIGHTS
            whole.parent.mkdir(parents=True)
            whole.write_bytes(CONTENT)
    finally:
        holder.communicate()
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    root, code, events = json.loads(out)
    assert code == ""
    (notice,) = heard(events, "Notice")
    assert notice["text"].startswith(f"{WEIGHTS} is being downloaded by another program")
    assert (Path(root) / WEIGHTS).read_bytes() == CONTENT
    assert bool(hub.paths(f"GET /cdn/{repo.repo_id}")) is not downloads
    if downloads:
        assert heard(events, "Advanced")[-1]["done"] == len(CONTENT)
        assert heard(events, "Finished")[0]["note"].endswith(" at 0 B/s")

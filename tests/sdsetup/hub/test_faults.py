"""Each way a network or a server can fail ends in a whole download or in one clear message."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hub_server import Account, Fault, HubServer, Repo, faults
from tests.hub_server.checkpoint import NEEDED, checkpoint_files
from tests.hub_server.client import Machine

REPO = "{repo}"
ALWAYS = -1
PORTAL = b"<html><body>Welcome to the hotel. Please log in.</body></html>"

# Each case has a repository of its own; its name is put in later.
INFO = f"GET /api/models/{REPO}"
HEAD = f"HEAD /{REPO}/resolve/*/unet/*.safetensors"
CDN = f"GET /cdn/{REPO}/*"
XORB = f"GET /cas/{REPO}/xorb/*"
UNET = "unet/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a case may spoil: the server, a repository, an account that may read it, the user's cache."""

    hub: HubServer
    repo: Repo
    account: Account
    machine: Machine


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault, and what the user must read; None when the download must come whole."""

    arrange: Callable[[Scene], object]
    message: str | None = None


def fault(where: str, action: faults.Action, *, times: int = 1) -> Case:
    def arrange(scene: Scene) -> None:
        pattern = where.replace("{repo}", scene.repo.repo_id)
        scene.hub.faults.append(Fault(where=pattern, action=action, times=times))

    return Case(arrange=arrange)


def failing(message: str, where: str, action: faults.Action) -> Case:
    return Case(arrange=fault(where, action, times=ALWAYS).arrange, message=message)


def several(*cases: Case) -> Case:
    def arrange(scene: Scene) -> None:
        for case in cases:
            case.arrange(scene)

    return Case(arrange=arrange)


def midway(change: Callable[[Scene], object], message: str | None = None) -> Case:
    """Change the server's state while a large file is half here, then break that transfer."""

    def arrange(scene: Scene) -> None:
        fault(CDN, faults.then(lambda: change(scene))).arrange(scene)
        fault(CDN, faults.reset(500_000)).arrange(scene)

    return Case(arrange=arrange, message=message)


def earlier(content: Callable[[bytes], bytes]) -> Case:
    """Leave the rest of an interrupted download in the cache."""

    def arrange(scene: Scene) -> None:
        blobs = scene.machine.storage(scene.repo.repo_id) / "blobs"
        blobs.mkdir(parents=True)
        partial = blobs / f"{scene.repo.etag(scene.repo.head, UNET)}.sdsetup.incomplete"
        partial.write_bytes(content(checkpoint_files()[UNET]))

    return Case(arrange=arrange)


def nothing(scene: Scene) -> None:
    """Spoil nothing."""


def commit_something_else(scene: Scene) -> None:
    scene.repo.commit(checkpoint_files(seed=2))


def revoke(scene: Scene) -> None:
    scene.hub.accounts.remove(scene.account)


def withdraw(scene: Scene) -> None:
    scene.repo.gated = "manual"


def switch_off(scene: Scene) -> None:
    scene.repo.disabled = True


def delete_repo(scene: Scene) -> None:
    del scene.hub.repos[scene.repo.repo_id]


def delete_file(scene: Scene) -> None:
    for tree in scene.repo.commits.values():
        tree.pop(UNET, None)


def with_xet(case: Case) -> Case:
    def arrange(scene: Scene) -> None:
        scene.repo.xet = True
        case.arrange(scene)

    return Case(arrange=arrange, message=case.message)


LIMIT = {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}

CASES = {
    "no fault at all": Case(arrange=nothing),
    "reset in the middle of a body": fault(CDN, faults.reset(700_000)),
    "reset in the middle of each of five bodies": fault(CDN, faults.reset(300_000), times=5),
    "reset before the first byte of a body": fault(CDN, faults.reset(0), times=2),
    "hang-up instead of an answer about a file": fault(HEAD, faults.hang_up(), times=2),
    "hang-up instead of an answer about the model": fault(INFO, faults.hang_up(), times=2),
    "hang-up for ever": failing("cannot be reached", INFO, faults.hang_up()),
    "body shorter than announced": fault(CDN, faults.close(900_000)),
    "body ends early without an announced length": fault(CDN, faults.shorten(400_000)),
    "stall in the middle of a body": fault(CDN, faults.stall(600_000, 30)),
    "silence instead of an answer about the model": fault(INFO, faults.silence(30)),
    "silence instead of an answer about a file": fault(HEAD, faults.silence(30)),
    "silence for ever": failing("no response for 1 s", INFO, faults.silence(30)),
    "slow but steady": fault(CDN, faults.drip(8_000, 0.15, 100_000), times=2),
    "one wrong byte once": fault(CDN, faults.flip(123_456)),
    "one wrong byte in every transfer": failing("does not match its hash", CDN, faults.flip(123_456)),
    "more bytes than the file has": fault(CDN, faults.pad(1000)),
    "429 with Retry-After": fault(INFO, faults.status(429, {"Retry-After": "1"})),
    "429 with the Hub's own limit headers": fault(INFO, faults.status(429, LIMIT)),
    "429 that asks for an hour": failing(
        "asks for fewer requests and to wait 3600 s", CDN, faults.status(429, {"Retry-After": "3600"})
    ),
    "503 burst about the model": fault(INFO, faults.status(503), times=3),
    "503 burst in the storage": fault(CDN, faults.status(503), times=3),
    "502 with a page": fault(HEAD, faults.status(502, {"Content-Type": "text/html"}, PORTAL), times=2),
    "503 for ever": failing("keeps responding with status 503", CDN, faults.status(503)),
    "408 once": fault(CDN, faults.status(408)),
    "redirect loop at a file": failing(
        "redirects every request in a loop", HEAD, faults.redirect_to_itself()
    ),
    "redirect loop in the storage": failing(
        "redirects every request in a loop", CDN, faults.redirect_to_itself()
    ),
    "revision moves during the download": midway(commit_something_else),
    "token revoked during the download": midway(revoke, "does not accept the token in HF_TOKEN"),
    "access withdrawn during the download": midway(withdraw, "only after accepting its terms"),
    "repository switched off during the download": midway(switch_off, "has disabled"),
    "repository deleted during the download": midway(delete_repo, "knows no model acme/"),
    "file deleted during the download": midway(delete_file, "is not there: unet/diffusion_pytorch_model"),
    "signed address expires": fault(CDN, faults.status(403, {}, b"Request has expired")),
    "range ignored on resume": several(
        fault(CDN, faults.reset(700_000)), fault(CDN, faults.ignore_range(), times=2)
    ),
    "range refused on resume": several(fault(CDN, faults.reset(700_000)), fault(CDN, faults.refuse_range())),
    "log-in page instead of the description": failing(
        "not from the Hub", INFO, faults.status(200, {"Content-Type": "text/html"}, PORTAL)
    ),
    "log-in page instead of a file": failing(
        "not from the Hub", HEAD, faults.status(200, {"Content-Type": "text/html"}, PORTAL)
    ),
    "description with half of its JSON": failing(
        "not from the Hub", INFO, faults.status(200, {}, b'{"id": "')
    ),
    "other size than listed": failing(
        "differs between the Hub's list and its server", HEAD, faults.alter_headers({"X-Linked-Size": "17"})
    ),
    "no commit in the answer": failing("not from the Hub", HEAD, faults.without_headers("X-Repo-Commit")),
    "bad bytes left by an earlier run": earlier(lambda content: bytes(len(content) // 3)),
    "too many bytes left by an earlier run": earlier(lambda content: content + b"more"),
    "all bytes left by an earlier run": earlier(lambda content: content),
    "xet works": with_xet(Case(arrange=nothing)),
    "xet refuses": with_xet(fault(f"GET /cas/{REPO}/*", faults.status(403), times=ALWAYS)),
    "xet is silent": with_xet(fault(XORB, faults.silence(60), times=ALWAYS)),
    "xet has wrong bytes": with_xet(fault(XORB, faults.flip(70_000), times=ALWAYS)),
}


@pytest.mark.parametrize("name", CASES)
def test_ends_in_a_whole_download_or_in_one_message(hub: HubServer, machine: Machine, name: str) -> None:
    case = CASES[name]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", name)
    account = Account(name=f"ann-{slug}", token=f"hf_NeverToBeSeenAnywhere{slug}")
    hub.accounts.append(account)
    repo = hub.add(Repo(repo_id=f"acme/{slug}", files=checkpoint_files()))
    expected = {needed: checkpoint_files()[needed] for needed in NEEDED}
    case.arrange(Scene(hub=hub, repo=repo, account=account, machine=machine))

    done = machine.run("download", repo.repo_id, HF_TOKEN=account.token)

    assert account.token not in done.stdout + done.stderr
    assert_storage_is_sound(machine.storage(repo.repo_id))
    if case.message is not None:
        assert done.code == 1, done.stderr
        assert case.message in done.stderr
        assert done.stderr.count("error:") == 1
        assert re.search(r"next: \S", done.stderr)
        heal(hub, repo, account)
        done = machine.run("download", repo.repo_id, HF_TOKEN=account.token)
    assert done.code == 0, done.stderr
    assert_complete(Path(done.stdout.strip()), expected)
    assert not list(machine.storage(repo.repo_id).rglob("*.incomplete"))


def heal(hub: HubServer, repo: Repo, account: Account) -> None:
    hub.faults[:] = [entry for entry in hub.faults if f"{repo.repo_id}" not in entry.where]
    if account not in hub.accounts:
        hub.accounts.append(account)
    hub.add(Repo(repo_id=repo.repo_id, files=checkpoint_files()))


def assert_complete(folder: Path, expected: dict[str, bytes]) -> None:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(found) == set(expected)
    for name, content in expected.items():
        assert found[name].read_bytes() == content, name


def assert_storage_is_sound(storage: Path) -> None:
    """Whatever has its final name in the cache has the content of that name."""
    for blob in storage.glob("blobs/*"):
        if blob.name.endswith(".incomplete"):
            continue
        content = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        assert blob.name in (hashlib.sha256(content).hexdigest(), git)
    for pointer in storage.glob("snapshots/**/*"):
        assert pointer.exists(), f"{pointer} leads nowhere"

"""``convert`` on a model of the Hub: downloaded or streamed, disturbed or not, the package is the same."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Account, Fault, HubServer, Repo, faults
from tests.hub_server.client import Machine
from tests.hub_server.kills import fingerprint, kill_and_run_again

pytestmark = pytest.mark.torch

REPO = "acme/tiny"
TOKEN = "hf_NotInAnyPackageOrReport"  # noqa: S105
ARGUMENTS = ["--no-verify", "--target", "cpu"]


@pytest.fixture(scope="module")
def files(tiny_checkpoint: Path) -> dict[str, Path]:
    found = [path for path in tiny_checkpoint.rglob("*") if path.is_file()]
    return {path.relative_to(tiny_checkpoint).as_posix(): path for path in found}


@pytest.fixture(scope="module")
def user(hub: HubServer, graph_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that has the traced graphs."""
    home = tmp_path_factory.mktemp("user")
    shutil.copytree(graph_cache, home / "caches" / "sdsetup" / "graphs")
    with Machine(endpoint=hub.endpoint, home=home, caches=home / "caches") as machine:
        yield machine


@pytest.fixture(scope="module")
def repo(hub: HubServer, files: dict[str, Path]) -> Repo:
    hub.accounts.append(Account(name="ann", token=TOKEN))
    return hub.add(Repo(repo_id=REPO, files=files))


@pytest.fixture(scope="module")
def undisturbed(user: Machine, repo: Repo) -> dict[str, str]:
    done = user.run_cold("convert", REPO, *ARGUMENTS, "--output", str(user.home / "first"), HF_TOKEN=TOKEN)
    assert done.code == 0, done.stderr
    return fingerprint(user.home / "first")


def test_a_package_names_its_repository_commit_and_hashes(
    user: Machine, repo: Repo, undisturbed: dict[str, str]
) -> None:
    manifest = json.loads((user.home / "first" / "manifest.json").read_text("utf-8"))
    assert manifest["checkpoint"]["origin"] == REPO
    assert manifest["checkpoint"]["commit"] == repo.head
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert manifest["checkpoint"]["sha256"][unet] == repo.etag(repo.head, unet)


def test_no_token_is_in_a_package_or_a_cache(user: Machine, undisturbed: dict[str, str]) -> None:
    written = [path for path in user.home.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert all(TOKEN.encode() not in path.read_bytes() for path in written)


def test_a_dry_run_plans_without_downloading(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    with Machine(endpoint=hub.endpoint, home=tmp_path) as fresh:
        hub.sent_bytes = 0
        done = fresh.run_cold("convert", REPO, *ARGUMENTS, "--dry-run", "--json")
        plan = json.loads(done.stdout)
        assert plan["download_bytes"] > 3_000_000
        assert plan["source_bytes"] > 3_000_000
        assert not list(fresh.cache.rglob("*.safetensors"))


def test_streaming_from_the_hub_gives_the_same_package_and_stores_no_checkpoint(
    hub: HubServer, repo: Repo, user: Machine, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with Machine(endpoint=hub.endpoint, home=tmp_path, caches=user.caches) as fresh:
        output = tmp_path / "package"
        done = fresh.run_cold("convert", REPO, *ARGUMENTS, "--no-cache", "--output", str(output))
        assert done.code == 0, done.stderr
        assert fingerprint(output) == undisturbed
        kept = sum(path.stat().st_size for path in (tmp_path / "hf").rglob("*") if path.is_file())
        assert kept < 10_000


def test_streaming_survives_a_bad_network(
    hub: HubServer, repo: Repo, user: Machine, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    hub.faults += [
        Fault(where=f"GET /cdn/{REPO}/*", action=faults.reset(100_000), times=3),
        Fault(where=f"GET /cdn/{REPO}/*", action=faults.status(503), times=2),
    ]
    with Machine(endpoint=hub.endpoint, home=tmp_path, caches=user.caches) as fresh:
        output = tmp_path / "package"
        done = fresh.run_cold("convert", REPO, *ARGUMENTS, "--no-cache", "--output", str(output))
        assert done.code == 0, done.stderr
        assert fingerprint(output) == undisturbed


def test_streaming_wrong_bytes_publishes_nothing(
    hub: HubServer, files: dict[str, Path], user: Machine, tmp_path: Path
) -> None:
    hub.add(Repo(repo_id="acme/altered", files=files))
    hub.faults.append(Fault(where="GET /cdn/acme/altered/*", action=faults.flip(90_000), times=-1))
    with Machine(endpoint=hub.endpoint, home=tmp_path, caches=user.caches) as fresh:
        output = tmp_path / "package"
        done = fresh.run_cold("convert", "acme/altered", *ARGUMENTS, "--no-cache", "--output", str(output))
        assert done.code == 1
        assert "is not the file that was published" in done.stderr
        assert not output.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")
@pytest.mark.parametrize("way", ["--cache", "--no-cache"])
def test_a_killed_conversion_is_finished_by_the_next_run(
    hub: HubServer, repo: Repo, user: Machine, undisturbed: dict[str, str], way: str
) -> None:
    slow = Fault(where=f"GET /cdn/{REPO}/*", action=faults.drip(2**16, 0.02, 10**9), times=-1)
    hub.faults.append(slow)
    try:
        # One moment of the whole run; tests.robustness kills more of them, the benchmark fifty.
        moment = 1.0 + 4 * random.random()
        outcome = kill_and_run_again(hub, user, repo, [*ARGUMENTS, way], moment, undisturbed)
    finally:
        hub.faults.remove(slow)
    assert outcome.right, outcome

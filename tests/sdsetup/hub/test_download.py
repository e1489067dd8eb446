from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Fault, HubServer, Repo, faults
from tests.hub_server.checkpoint import NEEDED, checkpoint_files
from tests.hub_server.client import Machine

REPO = "acme/tiny"
BIG = 10_000_000


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add(Repo(repo_id=REPO, files=checkpoint_files()))
        yield hub


@pytest.fixture
def user(server: HubServer, tmp_path: Path) -> Iterator[Machine]:
    with Machine(endpoint=server.endpoint, home=tmp_path) as machine:
        yield machine


def bytes_on_disk(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def needed_bytes(files: dict[str, bytes]) -> int:
    return sum(len(files[name]) for name in NEEDED)


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_only_what_a_plan_needs_is_downloaded(server: HubServer, user: Machine) -> None:
    done = user.run("download", REPO)
    assert set(files_below(Path(done.stdout.strip()))) == set(NEEDED)
    assert server.sent_bytes == needed_bytes(checkpoint_files())
    assert "licence creativeml-openrail-m" in done.stderr


def test_a_variant_replaces_the_plain_weights_where_it_exists(user: Machine) -> None:
    done = user.run("download", REPO, "--variant", "fp16", "--json")
    names = {entry["name"] for entry in json.loads(done.stdout)["files"]}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in names
    assert "unet/diffusion_pytorch_model.safetensors" not in names
    assert "vae/diffusion_pytorch_model.safetensors" in names


def test_a_dry_run_knows_sizes_and_licence_and_moves_no_weights(server: HubServer, user: Machine) -> None:
    done = user.run("download", REPO, "--dry-run", "--json")
    plan = json.loads(done.stdout)
    files = checkpoint_files()
    assert plan["total_bytes"] == needed_bytes(files)
    assert plan["download_bytes"] == needed_bytes(files) - len(files["model_index.json"])
    assert plan["licence"]["name"] == "creativeml-openrail-m"
    assert plan["folder"] is None
    assert not server.paths("GET /cdn/")


def test_a_second_run_asks_for_no_file(server: HubServer, user: Machine) -> None:
    first = user.run("download", REPO)
    server.requests.clear()
    second = user.run_cold("download", REPO)
    assert second.stdout == first.stdout
    assert not server.paths("/resolve/|/cdn/")


@pytest.mark.skipif(
    sys.platform == "win32", reason="without symbolic links the cache keeps no contents for later commits"
)
def test_a_new_commit_brings_only_what_changed(server: HubServer, user: Machine) -> None:
    old = Path(user.run("download", REPO).stdout.strip())
    changed = checkpoint_files() | {"unet/config.json": b'{"sample_size": 96}'}
    server.repos[REPO].commit(changed)
    server.requests.clear()
    new = Path(user.run("download", REPO).stdout.strip())
    assert new != old
    assert (new / "unet/config.json").read_bytes() == changed["unet/config.json"]
    assert not server.paths("GET /cdn/")


def test_an_old_revision_stays_within_reach(server: HubServer, user: Machine) -> None:
    old = server.repos[REPO].head
    server.repos[REPO].commit(checkpoint_files(seed=2))
    done = user.run("download", f"{REPO}@{old}")
    assert Path(done.stdout.strip()).name == old


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")
@pytest.mark.parametrize("xet", [False, True])
def test_a_killed_download_goes_on_where_it_was(server: HubServer, tmp_path: Path, xet: bool) -> None:
    # xet hands over a block when the whole of it is there: on a busy machine that is longer than a second.
    with Machine(endpoint=server.endpoint, home=tmp_path, stall_seconds=30) as user:
        _kill_and_go_on(server, user, xet)


def _kill_and_go_on(server: HubServer, user: Machine, xet: bool) -> None:
    files = checkpoint_files(unet_bytes=BIG)
    repo = server.add(Repo(repo_id=REPO, files=files, xet=xet))
    where = f"GET /{'cas' if xet else 'cdn'}/{REPO}/*"
    server.faults.append(Fault(where=where, action=faults.drip(2**16, 0.03, BIG), times=-1))
    process = user.start("download", REPO)
    partial = (
        user.storage(REPO)
        / "blobs"
        / (repo.etag(repo.head, "unet/diffusion_pytorch_model.safetensors") + ".sdsetup.incomplete")
    )
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size > 3_000_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = partial.stat().st_size
    assert kept > 3_000_000

    server.faults.clear()
    server.sent_bytes = 0
    done = user.run("download", REPO)
    assert done.code == 0, done.stderr
    assert files_below(Path(done.stdout.strip())) == {name: files[name] for name in NEEDED}
    assert server.sent_bytes < needed_bytes(files) - kept + 1_000_000
    if xet:
        assert server.paths("GET /cas/")
        assert not server.paths("GET /cdn/")


def test_two_programs_at_once_share_one_transfer(server: HubServer, user: Machine) -> None:
    server.faults.append(Fault(where=f"GET /cdn/{REPO}/*", action=faults.drip(2**16, 0.03, BIG), times=-1))
    processes = [user.start("download", REPO) for _ in range(2)]
    outputs = {process.communicate(timeout=300)[0] for process in processes}
    assert len(outputs) == 1
    assert [process.returncode for process in processes] == [0, 0]
    assert server.sent_bytes < 1.1 * needed_bytes(checkpoint_files())


def test_the_cache_is_the_one_of_the_hub_s_library(server: HubServer, user: Machine) -> None:
    import subprocess

    ours = Path(user.run("download", REPO).stdout.strip())
    server.sent_bytes = 0
    script = f"import huggingface_hub as h; print(h.snapshot_download('{REPO}', allow_patterns={NEEDED!r}))"
    theirs = subprocess.run(
        [sys.executable, "-c", script], env=user.environment(), capture_output=True, text=True, check=True
    )
    assert Path(theirs.stdout.strip()) == ours
    assert server.sent_bytes == 0


@pytest.mark.parametrize("links", [True, False])
def test_contents_are_stored_once(server: HubServer, tmp_path: Path, links: bool) -> None:
    with Machine(endpoint=server.endpoint, home=tmp_path) as user:
        extra = {} if links else {"HF_HUB_DISABLE_SYMLINKS": "1"}
        done = user.run_cold("download", REPO, **extra)
        assert done.code == 0, done.stderr
        assert bytes_on_disk(user.cache) < needed_bytes(checkpoint_files()) + 10_000
        server.requests.clear()
        assert user.run_cold("download", REPO, **extra).stdout == done.stdout
        assert not server.paths("/cdn/")


def test_a_folder_of_choice_is_filled_and_the_cache_left_alone(server: HubServer, user: Machine) -> None:
    target = user.home / "my models" / "tiny"
    done = user.run("download", REPO, "--local-dir", str(target))
    assert done.stdout.strip() == str(target)
    assert files_below(target) == {name: checkpoint_files()[name] for name in NEEDED}
    assert bytes_on_disk(user.cache) < 10_000
    server.requests.clear()
    (target / "vae/config.json").write_bytes(b'{"scaling_factor": 0.00000}')
    user.run("download", REPO, "--local-dir", str(target))
    assert files_below(target) == {name: checkpoint_files()[name] for name in NEEDED}
    assert not server.paths("/cdn/")


def test_a_folder_of_choice_is_filled_from_the_cache(server: HubServer, user: Machine) -> None:
    user.run("download", REPO)
    server.requests.clear()
    target = user.home / "copy"
    user.run("download", REPO, "--local-dir", str(target))
    assert files_below(target) == {name: checkpoint_files()[name] for name in NEEDED}
    assert not server.paths("/cdn/")


def test_weights_that_are_only_pickles_need_a_word_from_the_user(server: HubServer, user: Machine) -> None:
    files = {
        name: content for name, content in checkpoint_files().items() if not name.endswith("l.safetensors")
    }
    files.pop("unet/diffusion_pytorch_model.fp16.safetensors")
    files["vae/diffusion_pytorch_model.bin"] = b"pickled"
    server.add(Repo(repo_id="acme/pickled", files=files))
    refused = user.run("download", "acme/pickled")
    assert refused.code == 1
    assert "unet/diffusion_pytorch_model.bin, vae/diffusion_pytorch_model.bin" in refused.stderr
    assert "--allow-pickle" in refused.stderr
    assert user.run("download", "acme/pickled", "--allow-pickle").code == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"v1-5.ckpt": b"x"}, "has no model_index.json"),
        ({"model_index.json": b"[1]"}, "cannot be read"),
        ({"model_index.json": b"no"}, "cannot be read"),
        ({"model_index.json": b'{"unet": ["diffusers", "UNet"]}', "unet/model.onnx": b""}, "no weights"),
    ],
)
def test_a_repository_of_another_kind_is_named_as_such(
    server: HubServer, user: Machine, files: dict[str, bytes], message: str
) -> None:
    server.add(Repo(repo_id="acme/other", files=files))
    done = user.run("download", "acme/other")
    assert done.code == 1
    assert message in done.stderr


def test_a_file_name_that_leads_out_of_the_folder_is_refused(server: HubServer, user: Machine) -> None:
    index = b'{"../../../escape": ["diffusers", "UNet2DConditionModel"]}'
    files = {"model_index.json": index, "../../../escape/diffusion_pytorch_model.safetensors": b"gotcha"}
    server.add(Repo(repo_id="acme/evil", files=files))
    done = user.run("download", "acme/evil")
    assert done.code == 1
    assert "leads out of its folder" in done.stderr
    assert not list(user.home.rglob("escape*"))


def test_offline_mode_uses_the_cache_and_names_what_it_lacks(server: HubServer, user: Machine) -> None:
    nothing = user.run_cold("download", REPO, HF_HUB_OFFLINE="1")
    assert nothing.code == 1
    assert f"The cache holds nothing of {REPO} at main" in nothing.stderr
    folder = user.run("download", REPO).stdout
    server.requests.clear()
    whole = user.run_cold("download", REPO, HF_HUB_OFFLINE="1")
    assert whole.code == 0
    assert whole.stdout == folder
    (Path(folder.strip()) / "vae/diffusion_pytorch_model.safetensors").unlink()
    lacking = user.run_cold("download", REPO, HF_HUB_OFFLINE="1")
    assert lacking.code == 1
    assert "lacks the weights of vae" in lacking.stderr
    assert f"sdsetup download {REPO}" in lacking.stderr
    assert not server.requests


def test_without_a_network_the_cache_is_used_and_said_so(user: Machine) -> None:
    folder = user.run("download", REPO).stdout
    with Machine(endpoint="http://127.0.0.1:9", home=user.home) as cut_off:
        done = cut_off.run("download", REPO)
        assert done.code == 0
        assert done.stdout == folder
        assert "cannot be reached" in done.stderr
        assert "Using the cached commit" in done.stderr
        other = cut_off.run("download", "acme/other")
        assert other.code == 1
        assert "check the network" in other.stderr.lower()


def test_the_token_goes_to_the_hub_and_to_nobody_else(server: HubServer, user: Machine) -> None:
    from tests.hub_server import Account

    server.accounts.append(Account(name="ann", token="hf_forTheHubAlone"))  # noqa: S106
    user.run("download", REPO, HF_TOKEN="hf_forTheHubAlone")  # noqa: S106
    assert all("authorization" not in entry.headers for entry in server.requests if entry.origin == "cdn")
    sent = [entry.headers.get("authorization") for entry in server.requests if "resolve" in entry.path]
    assert set(sent) == {"Bearer hf_forTheHubAlone"}

"""What the Hub answers of a model, as a model at one commit; and the cache where it does not answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.hf_api import ModelInfo

from conversions.events import Event, Notice
from sdsetup.errors import SetupError
from sdsetup.hub import session
from sdsetup.hub.model_ref import DemoModel, HubModel, Licence, LocalModel, RemoteFile
from sdsetup.hub.resolve import _is_network_error, _licence, resolve
from tests.hub_server import Account, Fault, HubServer, Repo, faults

WEIGHTS = "unet/weights.safetensors"
A = {"rfilename": "a", "size": 1, "blobId": "0" * 40}
FILES = {WEIGHTS: b"1234", "config.json": b"{}"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that this process asks, with an empty cache and nobody logged in."""
    with HubServer() as made:
        made.add(Repo(repo_id="acme/tiny", files=FILES))
        monkeypatch.setattr(constants, "ENDPOINT", made.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(session, "_FIRST_WAIT_SECONDS", 0.001)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        session.api.cache_clear()
        yield made
        session.api.cache_clear()


def refused(code: str, model: str = "acme/tiny", **options: Any) -> SetupError:
    with pytest.raises(SetupError) as caught:
        resolve(model, **options)
    assert caught.value.code == code
    return caught.value


def test_a_model_is_pinned_to_a_commit_with_its_files_and_licence(hub: HubServer) -> None:
    heard: list[Event] = []
    found = resolve("acme/tiny", listener=heard.append)
    repo = hub.repos["acme/tiny"]
    tree = repo.commits[repo.head]
    assert found == HubModel(
        repo_id="acme/tiny",
        revision="main",
        commit=repo.head,
        files=(
            RemoteFile(
                name=WEIGHTS, size_bytes=4, sha256=tree[WEIGHTS].sha256, git_sha1=tree[WEIGHTS].git_sha1
            ),
            RemoteFile(name="config.json", size_bytes=2, git_sha1=tree["config.json"].git_sha1),
        ),
        licence=Licence(name="creativeml-openrail-m", page=f"{hub.endpoint}/acme/tiny"),
        online=True,
    )
    assert heard == []
    assert not hub.paths("auth-check")


def test_a_revision_is_asked_for_and_kept(hub: HubServer) -> None:
    repo = hub.repos["acme/tiny"]
    first = repo.head
    repo.commit({"config.json": b"[]"}, branch="next")
    found = resolve("acme/tiny", "next")
    assert isinstance(found, HubModel)
    assert (found.revision, found.commit) == ("next", repo.branches["next"])
    pinned = resolve(f"acme/tiny@{first}")
    assert isinstance(pinned, HubModel)
    assert (pinned.revision, pinned.commit) == (first, first)
    refused("hub.no-revision", revision="never")


def test_what_is_here_is_not_asked_for(hub: HubServer, tmp_path: Path) -> None:
    assert resolve("demo") == DemoModel()
    assert resolve(str(tmp_path)) == LocalModel(path=tmp_path.resolve())
    assert not hub.requests


def test_a_model_with_another_name_is_used_and_said(hub: HubServer) -> None:
    heard: list[Event] = []
    hub.add(Repo(repo_id="acme/old", files=FILES, moved_to="acme/tiny"))
    found = resolve("acme/old", listener=heard.append)
    assert isinstance(found, HubModel)
    assert found.repo_id == "acme/tiny"
    assert heard == [Notice(text="acme/old is called acme/tiny now.")]
    heard.clear()
    hub.add(Repo(repo_id="stable-diffusion-v1-5/stable-diffusion-v1-5", files=FILES))
    found = resolve("runwayml/stable-diffusion-v1-5", listener=heard.append)
    assert isinstance(found, HubModel)
    assert heard == [
        Notice(
            text="runwayml/stable-diffusion-v1-5 is gone from the Hub; using its copy "
            "stable-diffusion-v1-5/stable-diffusion-v1-5."
        )
    ]


def test_terms_that_were_not_accepted_are_told_before_a_download(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(Repo(repo_id="acme/gated", files=FILES, gated="auto", readers=("ann",)))
    refused("hub.gated", "acme/gated")
    hub.accounts.append(Account(name="ann", token="hf_forTheHubAlone"))  # noqa: S106
    monkeypatch.setenv("HF_TOKEN", "hf_forTheHubAlone")
    assert isinstance(resolve("acme/gated"), HubModel)


def changed(hub: HubServer, change: dict[str, Any]) -> None:
    """Let the Hub's answers of models have other values."""

    def rewritten(body: bytes) -> bytes:
        return json.dumps({**json.loads(body), **change}).encode()

    hub.faults.append(Fault(where="GET /api/models/*", action=faults.rewrite(rewritten), times=-1))


def test_a_model_that_the_hub_has_disabled_is_refused(hub: HubServer) -> None:
    changed(hub, {"disabled": True})
    assert refused("hub.disabled").message == ("The Hub has disabled acme/tiny; nobody can download it.")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "../x"}, "it names no repository"),
        ({"id": 3}, "it names no repository"),
        ({"sha": None}, "it names no commit"),
        ({"sha": "0" * 39}, "it names no commit"),
        ({"sha": "0" * 41}, "it names no commit"),
        ({"siblings": [{**A, "rfilename": 3}]}, "a file without a name"),
        ({"siblings": [{**A, "size": -1}]}, "'a' without a hash or a size"),
        (
            {"siblings": [{"rfilename": "a", "size": True, "blobId": "0" * 40}]},
            "'a' without a hash or a size",
        ),
        ({"siblings": [{**A, "blobId": "0" * 41}]}, "'a' without a hash or a size"),
        ({"siblings": [{"rfilename": "a", "size": 1}]}, "'a' without a hash or a size"),
    ],
)
def test_an_answer_that_names_no_model_is_strange(hub: HubServer, change: dict[str, Any], said: str) -> None:
    changed(hub, change)
    assert said in refused("hub.strange-answer").message


def test_files_of_no_bytes_and_models_of_no_files_are_fine(hub: HubServer) -> None:
    changed(hub, {"siblings": [{"rfilename": "a", "size": 0, "blobId": "0" * 40}]})
    found = resolve("acme/tiny")
    assert isinstance(found, HubModel)
    assert found.files == (RemoteFile(name="a", size_bytes=0, git_sha1="0" * 40),)
    changed(hub, {"siblings": None})
    hub.faults.reverse()
    found = resolve("acme/tiny")
    assert isinstance(found, HubModel)


def keep(commit: str, revision: str = "main") -> Path:
    """Put a model into the cache, as a download leaves it."""
    storage = Path(constants.HF_HUB_CACHE) / "models--acme--tiny"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / revision).write_text(commit, "utf-8")
    snapshot = storage / "snapshots" / commit
    (snapshot / "unet").mkdir(parents=True)
    (snapshot / WEIGHTS).write_bytes(b"1234")
    return snapshot


COMMIT = "0123456789" * 4


def test_the_cache_is_used_and_said_where_the_hub_does_not_answer(hub: HubServer) -> None:
    snapshot = keep(COMMIT)
    hub.faults.append(Fault(where="GET /api/models/*", action=faults.status(503), times=-1))
    heard: list[Event] = []
    found = resolve("acme/tiny", listener=heard.append)
    assert found == HubModel(
        repo_id="acme/tiny",
        revision="main",
        commit=COMMIT,
        files=(RemoteFile(name=WEIGHTS, size_bytes=4),),
        licence=None,
        online=False,
    )
    last = heard[-1]
    assert isinstance(last, Notice)
    assert last.text.endswith(" Using the cached commit 01234567.")
    refused("hub.server", revision="other")
    (snapshot / WEIGHTS).unlink()
    refused("hub.server")


def test_what_the_hub_refuses_is_not_taken_from_the_cache(hub: HubServer) -> None:
    keep(COMMIT)
    hub.repos.clear()
    refused("hub.private")


@pytest.mark.parametrize(
    "code", ["hub.offline", "hub.unreachable", "hub.server", "hub.proxy", "hub.certificate"]
)
def test_errors_of_the_network_are_those_that_the_cache_helps_with(code: str) -> None:
    assert _is_network_error(SetupError(code, "", ""))
    assert not _is_network_error(SetupError("hub.gated", "", ""))


def test_offline_the_cache_says_what_it_lacks(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused("hub.offline")
    assert error.message.endswith(" The cache holds nothing of acme/tiny at main.")
    assert error.hint
    keep(COMMIT)
    found = resolve("acme/tiny")
    assert isinstance(found, HubModel)
    assert not found.online
    assert not hub.requests


def test_where_a_folder_may_be_meant_it_is_said_that_there_is_none(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for model in ("mistyped", "models/mistyped"):
        with pytest.raises(SetupError) as caught:
            resolve(model)
        assert caught.value.message.startswith(f"There is no file or folder {model} here. ")
        assert caught.value.hint.startswith("Check the path. ")
    assert "no file or folder" not in refused("hub.offline").message


PAGE = "https://huggingface.co/acme/tiny"


@pytest.mark.parametrize(
    ("card", "tags", "name", "page"),
    [
        ({"license": "mit"}, [], "mit", PAGE),
        ({"license": "other", "license_name": "own"}, [], "own", PAGE),
        ({"license": "mit"}, ["license:apache-2.0"], "mit", PAGE),
        (None, ["x", "license:apache-2.0", "license:mit"], "apache-2.0", PAGE),
        ({"license": ["mit", "other"]}, ["license:mit"], "mit", PAGE),
        ({"license": "other", "license_link": "https://x/y"}, [], "other", "https://x/y"),
        ({"license": "other", "license_link": "LICENSE.md"}, [], "other", f"{PAGE}/blob/main/LICENSE.md"),
        ({"license": "other", "license_link": 3}, [], "other", PAGE),
        ({"license_link": "LICENSE.md"}, [], "", ""),
        (None, ["x"], "", ""),
        (None, None, "", ""),
    ],
)
def test_the_licence_is_the_card_s_or_a_tag_s(
    card: Any, tags: Any, name: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    info = ModelInfo(id="acme/tiny", cardData=card, tags=tags)
    assert _licence(info) == (Licence(name=name, page=page) if name else None)

"""What a user reads when a model cannot be had: a message of its own for each reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub_server import Account, HubServer, Repo
from tests.hub_server.checkpoint import checkpoint_files
from tests.hub_server.client import Machine

ANN = "hf_annsTokenThatNobodySees"
BOB = "hf_bobsTokenThatNobodySees"


@pytest.fixture(scope="module", autouse=True)
def models(hub: HubServer) -> Iterator[None]:
    files = checkpoint_files(unet_bytes=1000)
    hub.accounts += [Account(name="ann", token=ANN), Account(name="bob", token=BOB)]
    hub.add(Repo(repo_id="acme/open-diffusion", files=files))
    hub.add(Repo(repo_id="acme/gated", files=files, gated="auto", readers=("ann",)))
    hub.add(Repo(repo_id="acme/private", files=files, private=True, readers=("ann",)))
    hub.add(Repo(repo_id="acme/disabled", files=files, disabled=True))
    hub.add(Repo(repo_id="acme/renamed", files=files, moved_to="acme/open-diffusion"))
    answers = {
        "awaiting": "Your request to access model acme/awaiting is awaiting a review from the repo authors.",
        "rejected": "Your request to access model acme/rejected has been rejected by the repo's authors.",
        "narrow": "Please enable access to public gated repositories in your fine-grained token settings.",
    }
    for name, answer in answers.items():
        hub.add(Repo(repo_id=f"acme/{name}", files=files, gated="manual", gated_answer=answer))
    hub.add(
        Repo(
            repo_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
            files=files,
            licence="creativeml-openrail-m",
        )
    )
    yield


@pytest.mark.parametrize(
    ("model", "token", "message", "step"),
    [
        ("acme/gated", None, "only after accepting its terms", "accept the terms; then run: sdsetup login"),
        ("acme/gated", BOB, "the token in HF_TOKEN has not", "/acme/gated with that account"),
        ("acme/awaiting", ANN, "waits for its authors", "/acme/awaiting"),
        ("acme/rejected", ANN, "have refused this account", "/acme/rejected/discussions"),
        ("acme/narrow", ANN, "may not read gated repositories", "https://huggingface.co/settings/tokens"),
        ("acme/private", None, "it is private, or the name is wrong", "sdsetup login"),
        ("acme/private", BOB, "knows no model acme/private", "private model of another account"),
        ("acme/nothing-like-it", BOB, "knows no model", "/models?search=nothing-like-it"),
        ("acme/disabled", ANN, "has disabled acme/disabled", "/acme/disabled"),
        ("acme/open-diffusion", "hf_revokedToken", "does not accept the token in HF_TOKEN", "unset HF_TOKEN"),
        ("acme/open-diffusion@v9", ANN, "has no revision 'v9'", "It has: main"),
    ],
)
def test_each_reason_has_its_own_message_and_step(
    machine: Machine, model: str, token: str | None, message: str, step: str
) -> None:
    done = machine.run("download", model, **({"HF_TOKEN": token} if token else {}))
    assert done.code == 1
    error, hint = done.stderr.strip().splitlines()
    assert error.startswith("error:")
    assert message in error
    assert hint.startswith("next:")
    assert step in hint
    assert not token or token not in done.stderr


@pytest.mark.parametrize("model", ["acme/gated", "acme/private"])
def test_those_who_may_can_download(machine: Machine, model: str) -> None:
    assert machine.run("download", model, HF_TOKEN=ANN).code == 0


@pytest.mark.parametrize(
    "model", ["acme/opne-diffusion", "acme/open-difusion", "acmee/open-diffusion", "Acme/open_diffusion-1"]
)
def test_a_wrong_name_gets_the_near_one(machine: Machine, model: str) -> None:
    for token in ({}, {"HF_TOKEN": ANN}):
        assert "Did you mean acme/open-diffusion" in machine.run("download", model, **token).stderr


def test_three_near_names_are_shown_and_no_far_one(hub: HubServer, machine: Machine) -> None:
    for letter in "abcd":
        hub.add(Repo(repo_id=f"near/painting-xl-{letter}", files={}))
    shown = machine.run("download", "near/painting-xl", HF_TOKEN=ANN).stderr
    assert "Did you mean near/painting-xl-a or near/painting-xl-b or near/painting-xl-c?" in shown
    alone = machine.run("download", "zzz/qqqqqqqqqqq", HF_TOKEN=ANN).stderr
    assert "The Hub knows no model zzz/qqqqqqqqqqq.\n" in alone


def test_another_name_of_the_same_model_is_announced(machine: Machine) -> None:
    gone = machine.run("download", "runwayml/stable-diffusion-v1-5", "--dry-run")
    assert gone.code == 0
    assert "using its copy stable-diffusion-v1-5/stable-diffusion-v1-5" in gone.stderr
    renamed = machine.run("download", "acme/renamed", "--dry-run")
    assert renamed.code == 0
    assert "acme/renamed is called acme/open-diffusion now" in renamed.stderr

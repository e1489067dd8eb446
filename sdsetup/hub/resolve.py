"""Resolve a model reference to one model at one commit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from conversions.events import Listener, Notice, ignore
from sdsetup.errors import SetupError
from sdsetup.hub import cache, model_ref, session
from sdsetup.hub.access import page, translate_errors
from sdsetup.hub.model_ref import HubModel, Licence, ModelRef, RemoteFile, RepoName


def resolve(model: str, revision: str | None = None, *, listener: Listener = ignore) -> ModelRef:
    """Resolve a model reference.

    Args:
        model: ``demo``, a path, ``owner/name``, ``owner/name@revision``, or the URL of a model's page.
        revision: Branch, tag or commit; None uses the default branch.
        listener: Receives a notice when the model has another name than the one given.

    Returns:
        A local model, the demo, or a repository pinned to one commit. Its terms have been accepted and this
        account may read it, as far as the Hub tells before a download.

    Raises:
        SetupError: One of the codes of ``hub.access.translate_errors``, or of ``hub.model_ref.parse``.
    """
    name = model_ref.parse(model, revision)
    if not isinstance(name, RepoName):
        return name
    if name.moved_from is not None:
        listener(Notice(text=f"{name.moved_from} is gone from the Hub; using its copy {name.repo_id}."))
    wanted = name.revision or constants.DEFAULT_REVISION
    try:
        with translate_errors(name.repo_id, wanted):
            return _ask(name.repo_id, name.revision, listener)
    except SetupError as error:
        kept = _from_cache(name.repo_id, wanted) if _is_network_error(error) else None
        if kept is not None:
            listener(Notice(text=f"{error.message} Using the cached commit {kept.commit[:8]}."))
            return kept
        lacking = (
            f" The cache holds nothing of {name.repo_id} at {wanted}." if error.code == "hub.offline" else ""
        )
        mistyped = _is_network_error(error) and Path(model).parent.is_dir()
        if lacking or mistyped:
            raise SetupError(
                error.code,
                f"{f'There is no file or folder {model} here. ' if mistyped else ''}{error.message}{lacking}",
                f"{'Check the path. ' if mistyped else ''}{error.hint}",
            ) from error
        raise


def _ask(repo_id: str, revision: str | None, listener: Listener) -> HubModel:
    api = session.api()
    info = session.with_retries(
        lambda: api.model_info(repo_id, revision=revision, files_metadata=True), listener
    )
    if not isinstance(info.id, str) or not model_ref.is_repo_id(info.id):
        raise ValueError("it names no repository")
    if info.gated:
        # The metadata of a gated model is public; its files are not.
        session.with_retries(lambda: api.auth_check(info.id), listener)
    if info.disabled:
        raise SetupError(
            "hub.disabled",
            f"The Hub has disabled {repo_id}; nobody can download it.",
            f"See why at {page(repo_id)}, or take another model.",
        )
    if info.id != repo_id:
        listener(Notice(text=f"{repo_id} is called {info.id} now."))
    if not isinstance(info.sha, str) or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise ValueError("it names no commit")
    return HubModel(
        repo_id=info.id,
        revision=revision or constants.DEFAULT_REVISION,
        commit=info.sha,
        files=tuple(_remote_file(sibling) for sibling in info.siblings or ()),
        licence=_licence(info),
    )


def _remote_file(sibling: RepoSibling) -> RemoteFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs is not None else None
    if not isinstance(sibling.rfilename, str):
        raise TypeError("it lists a file without a name")
    hashed = re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", sha256 or sibling.blob_id or "")
    if not hashed or type(sibling.size) is not int or sibling.size < 0:
        raise ValueError(f"it lists {sibling.rfilename!r} without a hash or a size")
    return RemoteFile(
        name=sibling.rfilename, size_bytes=sibling.size, sha256=sha256, git_sha1=sibling.blob_id
    )


def _licence(info: ModelInfo) -> Licence | None:
    card: Mapping[str, object] = info.card_data.to_dict() if info.card_data is not None else {}
    name = card.get("license_name") or card.get("license")
    if not isinstance(name, str):
        name = next(
            (tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), ""
        )
    link = card.get("license_link")
    if not name:
        return None
    if not isinstance(link, str):
        return Licence(name=name, page=page(info.id))
    return Licence(name=name, page=link if "://" in link else f"{page(info.id)}/blob/main/{link}")


def _is_network_error(error: SetupError) -> bool:
    return error.code in ("hub.offline", "hub.unreachable", "hub.server", "hub.proxy", "hub.certificate")


def _from_cache(repo_id: str, revision: str) -> HubModel | None:
    commit = cache.read_ref(repo_id, revision)
    if commit is None:
        return None
    files = cache.list_snapshot(repo_id, commit)
    if not files:
        return None
    return HubModel(repo_id=repo_id, revision=revision, commit=commit, files=files, online=False)

"""Paths in the Hub's cache, which other programs share.

Layout, per repository: ``blobs/<etag>`` holds contents, ``snapshots/<commit>/<name>`` points to them,
``refs/<revision>`` holds the commit that a branch or tag meant last.
Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from sdsetup.errors import SetupError
from sdsetup.hub.model_ref import HubModel, RemoteFile


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Paths of one file of a download.

    Attributes:
        pointer: The path that readers open.
        blob: Path of the content; the same as ``pointer`` outside the cache.
        partial: The incomplete content; kept after an interruption and resumed.
        lock: Held while ``partial`` is written.
    """

    pointer: Path
    blob: Path
    partial: Path
    lock: Path

    def is_filled(self, file: RemoteFile) -> bool:
        """Whether the complete file is in place."""
        try:
            size = self.pointer.stat().st_size
        except OSError:
            return False
        return file.size_bytes is None or size == file.size_bytes

    def adopt_blob(self, file: RemoteFile) -> bool:
        """Link to content that another revision downloaded already."""
        try:
            usable = self.blob != self.pointer and self.blob.stat().st_size == file.size_bytes
        except OSError:
            return False
        if usable:
            self._point()
        return usable

    def publish(self) -> None:
        """Move the finished ``partial`` into place atomically."""
        self.blob.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.partial, self.blob)  # noqa: PTH105 - the same call on every system
        if self.blob != self.pointer:
            self._point()

    def _point(self) -> None:
        self.pointer.parent.mkdir(parents=True, exist_ok=True)
        if not constants.HF_HUB_DISABLE_SYMLINKS:
            link = self.pointer.with_name(f".{uuid.uuid4().hex[:8]}.link")
            try:
                link.symlink_to(os.path.relpath(self.blob, self.pointer.parent))
                link.replace(self.pointer)
            except OSError:
                link.unlink(missing_ok=True)
            else:
                return
        # Standard Windows accounts cannot create links: move the content, so that it is stored once.
        self.blob.replace(self.pointer)


def folder() -> Path:
    """Return the root of the cache, which ``HF_HUB_CACHE`` or ``HF_HOME`` sets."""
    return Path(constants.HF_HUB_CACHE).expanduser()


def storage(repo_id: str) -> Path:
    """Return the folder of one repository in the cache."""
    return folder() / repo_folder_name(repo_id=repo_id, repo_type="model")


def snapshot(repo_id: str, commit: str) -> Path:
    """Return the folder with the files of one commit under their names."""
    return storage(repo_id) / "snapshots" / commit


def slot(model: HubModel, file: RemoteFile, local_dir: Path | None = None) -> Slot:
    """Return the paths for ``file``, in the cache or under ``local_dir``.

    Raises:
        SetupError: ``hub.unsafe-name`` when the file's name leads out of the folder.
    """
    root = local_dir if local_dir is not None else snapshot(model.repo_id, model.commit)
    pointer = root.joinpath(*_safe_parts(model, file.name))
    if local_dir is not None:
        partial = pointer.with_name(f"{pointer.name}.{file.etag[:12]}.partial")
        return Slot(pointer=pointer, blob=pointer, partial=partial, lock=partial.with_suffix(".lock"))
    blob = storage(model.repo_id) / "blobs" / file.etag
    locks = folder() / ".locks" / repo_folder_name(repo_id=model.repo_id, repo_type="model")
    return Slot(
        pointer=pointer,
        blob=blob,
        partial=blob.with_name(f"{blob.name}.sdsetup.incomplete"),
        lock=locks / f"{file.etag}.lock",
    )


def read_ref(repo_id: str, revision: str) -> str | None:
    """Return the commit of ``revision`` when it was last downloaded; None if it never was."""
    if _is_commit(revision):
        return revision if snapshot(repo_id, revision).is_dir() else None
    path = storage(repo_id).joinpath("refs", *revision.split("/"))
    try:
        commit = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return commit if _is_commit(commit) else None


def write_ref(model: HubModel) -> None:
    """Save the revision's commit, for use without a network."""
    if _is_commit(model.revision) or read_ref(model.repo_id, model.revision) == model.commit:
        return
    path = storage(model.repo_id).joinpath("refs", *model.revision.split("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    fresh.write_text(model.commit, encoding="utf-8")
    fresh.replace(path)


def list_snapshot(repo_id: str, commit: str) -> tuple[RemoteFile, ...]:
    """List the files of a commit that are complete in the cache."""
    root = snapshot(repo_id, commit)
    return tuple(
        RemoteFile(name=path.relative_to(root).as_posix(), size_bytes=path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    )


def _is_commit(text: str) -> bool:
    return len(text) == 40 and all(letter in "0123456789abcdef" for letter in text)


def _safe_parts(model: HubModel, name: str) -> list[str]:
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
        raise SetupError(
            "hub.unsafe-name",
            f"{model.repo_id} lists a file whose name leads out of its folder: {name!r}.",
            "Do not use this model; report it on its page.",
        )
    return parts

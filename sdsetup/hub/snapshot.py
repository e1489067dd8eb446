"""A checkpoint in the Hub's cache, whose files are identified by their hashes."""

from __future__ import annotations

from conversions.checkpoint.storage import Folder
from sdsetup.hub import cache
from sdsetup.hub.model_ref import HubModel


class Snapshot(Folder):
    """The files of one commit in the cache.

    File times are ignored: an interrupted conversion resumes even if its checkpoint has been downloaded
    again, since the hashes are the same.

    Args:
        model: The repository at its commit.
    """

    def __init__(self, model: HubModel) -> None:
        super().__init__(cache.snapshot(model.repo_id, model.commit))
        self._hashes = {file.name: file.etag for file in model.files}

    def known_sha256(self, name: str) -> str:
        """Return the file's hash from the Hub, or an empty string."""
        known = self.version(name)
        return known if len(known) == 64 else ""

    def version(self, name: str) -> str:
        """Return the hash of the file's content."""
        known = self._hashes.get(name)
        if known:
            return known
        blob = (self.path / name).resolve()
        return blob.name if blob.parent.name == "blobs" else super().version(name)

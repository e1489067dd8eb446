"""Save the progress of a stream periodically, so that an interrupted one resumes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversions.package.layout import write_json
from conversions.weights.async_hash import Hash

_SAVE_INTERVAL_SECONDS = 1.0
_HASHED_AT_ONCE_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class SavedProgress:
    """State of an interrupted stream.

    Attributes:
        pieces: Number of pieces written.
        sizes: Length of each submodel's file in bytes.
        hashes: Running SHA-256 of each submodel's file up to that length.
        overflows: Tensors that did not fit so far, with their largest magnitudes, by submodel.
    """

    pieces: int
    sizes: Mapping[str, int]
    hashes: Mapping[str, Hash]
    overflows: Mapping[str, Mapping[str, float]]


class StreamProgress:
    """Progress file beside the files that the stream writes.

    Args:
        path: The file.
        work: Identifies the work exactly; progress of other work is ignored.
    """

    def __init__(self, path: Path, work: object) -> None:
        self._path = path
        self._work = hashlib.sha256(repr(work).encode()).hexdigest()
        self._saved_at = time.monotonic()

    def load(self, paths: Mapping[str, Path]) -> SavedProgress | None:
        """Load the progress of an earlier run, if ``paths`` still hold the bytes it recorded.

        Hashes are compared, since a power failure may have lost bytes that were recorded as written.
        """
        try:
            saved: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
            if saved["work"] != self._work:
                return None
            hashes = {}
            for name, path in paths.items():
                hashes[name] = _hash_start(path, saved["sizes"][name])
                if hashes[name].hexdigest() != saved["sha256"][name]:
                    return None
            return SavedProgress(
                pieces=saved["pieces"], sizes=saved["sizes"], hashes=hashes, overflows=saved["overflows"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(
        self,
        pieces: int,
        sizes: Mapping[str, int],
        hashes: Mapping[str, Hash],
        overflows: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Save the progress, unless it was saved moments ago."""
        now = time.monotonic()
        if now - self._saved_at < _SAVE_INTERVAL_SECONDS:
            return
        self._saved_at = now
        write_json(
            self._path,
            {
                "work": self._work,
                "pieces": pieces,
                "sizes": dict(sizes),
                "sha256": {name: sha256.hexdigest() for name, sha256 in hashes.items()},
                "overflows": {name: dict(found) for name, found in overflows.items()},
            },
        )

    def clear(self) -> None:
        """Delete the saved progress, so that the stream starts anew."""
        self._path.unlink(missing_ok=True)


def _hash_start(path: Path, size_bytes: int) -> Hash:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_HASHED_AT_ONCE_BYTES))
    with path.open("rb", buffering=0) as file:
        left = size_bytes
        while left and (count := file.readinto(buffer[:left])):
            digest.update(buffer[:count])
            left -= count
    return digest

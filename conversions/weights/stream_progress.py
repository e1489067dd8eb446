"""How far a stream has come, noted now and then, so that a killed one goes on where it was."""

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

_NOTED_EVERY_SECONDS = 1.0
_HASHED_AT_ONCE_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What an interrupted stream has left.

    Attributes:
        pieces: How many of the pieces are written.
        sizes: For each submodel how long its file was then, in bytes.
        hashes: For each submodel the running SHA-256 of that much.
        overflows: For each submodel the tensors that did not fit so far, with their largest magnitudes.
    """

    pieces: int
    sizes: Mapping[str, int]
    hashes: Mapping[str, Hash]
    overflows: Mapping[str, Mapping[str, float]]


class StreamProgress:
    """A small file beside what the stream writes.

    Args:
        path: The file.
        work: What the stream does, exactly; notes of other work are ignored.
    """

    def __init__(self, path: Path, work: object) -> None:
        self._path = path
        self._work = hashlib.sha256(repr(work).encode()).hexdigest()
        self._noted = time.monotonic()

    def begun(self, paths: Mapping[str, Path]) -> Begun | None:
        """Return what an earlier run has left in ``paths``, if it holds the bytes that were noted.

        The hashes guard against a machine that lost its power before all noted bytes were on the disk.
        """
        try:
            notes: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
            if notes["work"] != self._work:
                return None
            hashes = {}
            for name, path in paths.items():
                hashes[name] = _hash_start(path, notes["sizes"][name])
                if hashes[name].hexdigest() != notes["sha256"][name]:
                    return None
            return Begun(
                pieces=notes["pieces"], sizes=notes["sizes"], hashes=hashes, overflows=notes["overflows"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(
        self,
        pieces: int,
        sizes: Mapping[str, int],
        hashes: Mapping[str, Hash],
        overflows: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Write down where the stream is, unless it was done a moment ago."""
        now = time.monotonic()
        if now - self._noted < _NOTED_EVERY_SECONDS:
            return
        self._noted = now
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
        """Forget what was noted: what was written is not to be built on."""
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

"""A checkpoint whose files come from several places: weights here, configurations there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conversions.checkpoint.storage import Reader, Storage


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file in a storage.

    Attributes:
        storage: Where it is.
        name: What it is called there.
    """

    storage: Storage
    name: str


class Layered:
    """Files of several storages under names of their own.

    Args:
        label: What to call this place in messages.
        places: Where each file is, by its name here.
    """

    def __init__(self, label: str, places: Mapping[str, Place]) -> None:
        self._label = label
        self._places = dict(places)

    @property
    def label(self) -> str:
        """What to call this place in messages."""
        return self._label

    def names(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        return sorted(self._places)

    def size_bytes(self, name: str) -> int:
        """Return the size of a file."""
        place = self._places[name]
        return place.storage.size_bytes(place.name)

    def version(self, name: str) -> str:
        """Return a mark that changes when the file's content does."""
        place = self._places[name]
        return place.storage.version(place.name)

    def known_sha256(self, name: str) -> str:
        """Return the hash that the file must have, where its place knows it; else an empty string."""
        place = self._places[name]
        return place.storage.known_sha256(place.name)

    def path_of(self, name: str) -> Path | None:
        """Return where the file lies on this machine; None when it does not."""
        place = self._places[name]
        return place.storage.path_of(place.name)

    def read(self, name: str) -> bytes:
        """Return a small file whole."""
        place = self._places[name]
        return place.storage.read(place.name)

    def open(self, name: str) -> Reader:
        """Open a large file for reading by position."""
        place = self._places[name]
        return place.storage.open(place.name)


def all_of(storage: Storage) -> dict[str, Place]:
    """Return the places of all files of a storage, under their own names."""
    return {name: Place(storage=storage, name=name) for name in storage.names()}

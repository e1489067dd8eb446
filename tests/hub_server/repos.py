"""What the server serves: accounts, repositories, contents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

_IN_LARGE_FILE_STORAGE = (".safetensors", ".bin", ".ckpt", ".onnx", ".msgpack")


@dataclass(frozen=True, kw_only=True)
class Account:
    name: str
    token: str
    role: str = "read"
    label: str = "laptop"
    organisations: tuple[str, ...] = ()


class Content:
    """The bytes of one file, in memory or on disk."""

    def __init__(self, source: bytes | Path) -> None:
        self._source = source
        self.size = len(source) if isinstance(source, bytes) else source.stat().st_size

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        if isinstance(self._source, bytes):
            for position in range(start, end, 2**16):
                yield self._source[position : min(position + 2**16, end)]
            return
        with self._source.open("rb") as stream:
            stream.seek(start)
            while start < end:
                piece = stream.read(min(2**20, end - start))
                start += len(piece)
                yield piece

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.size):
            digest.update(piece)
        return digest.hexdigest()

    @cached_property
    def git_sha1(self) -> str:
        digest = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        for piece in self.pieces(0, self.size):
            digest.update(piece)
        return digest.hexdigest()


@dataclass(kw_only=True)
class Repo:
    repo_id: str
    files: Mapping[str, bytes | Path]
    licence: str = "creativeml-openrail-m"
    gated: str | bool = False
    gated_answer: str = ""
    private: bool = False
    disabled: bool = False
    readers: tuple[str, ...] = ()
    moved_to: str | None = None
    xet: bool = False
    commits: dict[str, dict[str, Content]] = field(init=False, default_factory=dict)
    branches: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.commit(self.files)

    def commit(self, files: Mapping[str, bytes | Path], branch: str = "main") -> str:
        """Make ``files`` the new state of a branch, and return the commit."""
        tree = {name: Content(source) for name, source in files.items()}
        listing = "".join(f"{name} {content.git_sha1}\n" for name, content in sorted(tree.items()))
        digest = hashlib.sha1(f"{self.repo_id} {listing}".encode(), usedforsecurity=False).hexdigest()
        self.commits[digest] = tree
        self.branches[branch] = digest
        return digest

    @property
    def head(self) -> str:
        return self.branches["main"]

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)

    def is_large(self, name: str) -> bool:
        return name.endswith(_IN_LARGE_FILE_STORAGE)

    def etag(self, commit: str, name: str) -> str:
        content = self.commits[commit][name]
        return content.sha256 if self.is_large(name) else content.git_sha1

"""Changes of a folder's files: plain values, so that a failure can be written down and done again."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Keys = tuple[str | int, ...]

VALUES = (
    None, "x", "", "auto", "../..", "/etc/passwd", -1, 0, 1, 3, 7, 10**9, 2**40, 10**30, 1.5, -0.5, 1e308,
    math.nan, math.inf, True, False, [], [1, 2], [[1], 2], [None], ["x"], [1] * 500, {}, {"a": 1},
    "\ud83d", ["\udc00"], "a" * 5000, "{{ self.__init__ }}", "\x00", "\n", "CLIPTokenizer", "float16",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A change of one file; what is not there any more is left alone."""

    file: str

    def apply(self, folder: Path) -> None:
        """Make the change below ``folder``; one that an earlier change made impossible is none."""
        path = folder / self.file
        if path.is_file() and not path.is_symlink():
            with suppress(Exception):
                self.change(path)

    def change(self, path: Path) -> None:
        """Change a file that is there."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SetField(Mutation):
    """Set, add or, with ``drop``, remove one field of a JSON file."""

    keys: Keys
    value: str
    drop: bool = False

    def change(self, path: Path) -> None:
        try:
            document = place = json.loads(path.read_text("utf-8"))
            for key in self.keys[:-1]:
                place = place[key]
            if self.drop:
                del place[self.keys[-1]]
            else:
                place[self.keys[-1]] = json.loads(self.value)
        except (ValueError, KeyError, IndexError, TypeError):
            return
        _write(path, json.dumps(document).encode())


@dataclass(frozen=True, kw_only=True)
class Content(Mutation):
    """Replace a file's content."""

    content: bytes

    def change(self, path: Path) -> None:
        _write(path, self.content)


@dataclass(frozen=True, kw_only=True)
class Flip(Mutation):
    """Change one byte, ``at`` of the way through the file."""

    at: float
    mask: int

    def change(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        if content:
            content[int(self.at * (len(content) - 1))] ^= self.mask
        _write(path, bytes(content))


@dataclass(frozen=True, kw_only=True)
class Cut(Mutation):
    """Keep a share of a file; more than 1 repeats its start."""

    keep: float

    def change(self, path: Path) -> None:
        content = path.read_bytes()
        _write(path, (content * 2)[: int(len(content) * self.keep)])


@dataclass(frozen=True, kw_only=True)
class Become(Mutation):
    """Put something else in a file's place."""

    what: str

    def change(self, path: Path) -> None:
        path.unlink()
        match self.what:
            case "folder":
                path.mkdir()
            case "pipe":
                os.mkfifo(path)
            case "link to itself":
                path.symlink_to(path.name)
            case "link to nothing":
                path.symlink_to("gone")
            case "link to zeros":
                path.symlink_to("/dev/zero")
            case "link to a folder":
                path.symlink_to("/usr")
            case "link to a secret":
                path.symlink_to("/etc/passwd")


@dataclass(frozen=True, kw_only=True)
class Swap(Mutation):
    """Give a file the content of another one."""

    other: str

    def change(self, path: Path) -> None:
        other = path.parents[len(Path(self.file).parts) - 1] / self.other
        if other.is_file():
            _write(path, other.read_bytes())


@dataclass(frozen=True, kw_only=True)
class TensorField(Mutation):
    """Change what a safetensors file's table says of one tensor; or, with ``rename``, its name."""

    tensor: float
    key: str
    value: str

    def change(self, path: Path) -> None:
        table, data = read_table(path)
        names = [name for name in table if name != "__metadata__"]
        if not names:
            return
        name = names[int(self.tensor * (len(names) - 1))]
        value = json.loads(self.value)
        if self.key == "name":
            table = {(str(value) if each == name else each): entry for each, entry in table.items()}
        elif isinstance(table[name], dict):
            table[name][self.key] = value
        write_table(path, table, data)


@dataclass(frozen=True, kw_only=True)
class Weight(Mutation):
    """Set one float32 in the tensors' bytes."""

    at: float
    value: float

    def change(self, path: Path) -> None:
        table, data = read_table(path)
        if len(data) < 4:
            return
        place = int(self.at * (len(data) // 4 - 1)) * 4
        changed = bytearray(data)
        struct.pack_into("<f", changed, place, self.value)
        write_table(path, table, bytes(changed))


@dataclass(frozen=True, kw_only=True)
class Graph(Mutation):
    """Change an ONNX graph: where a tensor's data is said to be, or what an operator is."""

    index: float
    key: str
    value: str

    def change(self, path: Path) -> None:
        import onnx

        try:
            model = onnx.load(path, load_external_data=False)
        except Exception:  # noqa: BLE001 - an earlier change spoiled it
            return
        if not model.graph.node:
            return
        if self.key in ("op_type", "domain", "input"):
            node = model.graph.node[int(self.index * (len(model.graph.node) - 1))]
            if self.key == "input":
                node.input[:] = [self.value] * len(node.input)
            else:
                setattr(node, self.key, self.value)
        else:
            stored = [each for each in model.graph.initializer if each.external_data]
            if not stored:
                return
            tensor = stored[int(self.index * (len(stored) - 1))]
            for entry in tensor.external_data:
                if entry.key == self.key:
                    entry.value = self.value
        _write(path, model.SerializeToString())


def read_table(path: Path) -> tuple[dict[str, Any], bytes]:
    """Split a safetensors file into its table and its bytes; nothing of a damaged one."""
    content = path.read_bytes()
    try:
        (length,) = struct.unpack_from("<Q", content)
        return json.loads(content[8 : 8 + length]), content[8 + length :]
    except (struct.error, ValueError, OverflowError):
        return {}, b""


def write_table(path: Path, table: dict[str, Any], data: bytes) -> None:
    """Write a safetensors file."""
    header = json.dumps(table).encode()
    _write(path, struct.pack("<Q", len(header)) + header + data)


def _write(path: Path, content: bytes) -> None:
    """Write a new file: the old one may be hard-linked to the original."""
    path.unlink()
    path.write_bytes(content)


def copy(folder: Path, to: Path, *, linked: bool = True) -> Path:
    """Copy a folder, with hard links or without; mutations write new files."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to, copy_function=os.link if linked else shutil.copy2))


_SPECIAL = (
    *("folder", "pipe", "link to itself", "link to nothing", "link to zeros", "link to a folder"),
    "link to a secret",
)
_CONTENTS = (
    b"", b"{}", b"[]", b"null", b"{", b"\0" * 64, b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"[" * 100_000,
    b'{"a":' * 50_000, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    b"<html>Please log in</html>", b"\x80\x04\x95cos\nsystem\n(S'false'\ntR.", b"PK\x03\x04" + b"\0" * 40,
    struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 2) + b"{}",
)  # fmt: skip
_SHARE = st.floats(0, 1, width=32)


def of_folder(folder: Path) -> st.SearchStrategy[tuple[Mutation, ...]]:
    """Return a strategy of one to three changes of a folder's files."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    # Configurations are many to one more interesting than vocabularies.
    small = [name for name in names if name.endswith((".json", ".txt")) and "vocab" not in name]
    kinds: list[st.SearchStrategy[Mutation]] = [
        _fields(folder, [n for n in small if n.endswith(".json")])
    ] * 4
    kinds += [
        st.builds(Content, file=st.sampled_from(names), content=st.sampled_from(_CONTENTS)),
        st.builds(Content, file=st.sampled_from(small), content=st.binary(max_size=64)),
        st.builds(Flip, file=st.sampled_from(names), at=_SHARE, mask=st.integers(1, 255)),
        st.builds(Cut, file=st.sampled_from(names), keep=st.floats(0, 1.5, width=32)),
        st.builds(Become, file=st.sampled_from(names), what=st.sampled_from(_SPECIAL)),
        st.builds(Swap, file=st.sampled_from(names), other=st.sampled_from(names)),
    ]
    if weights := [name for name in names if name.endswith(".safetensors")]:
        kinds += [_table(weights), weights_of(weights)]
    if graphs := [name for name in names if name.endswith(".onnx")]:
        kinds += [_graph(graphs)] * 2
    return st.lists(st.one_of(kinds), min_size=1, max_size=3).map(tuple)


def weights_of(files: list[str]) -> st.SearchStrategy[Mutation]:
    """Return a strategy of single numbers in weight files."""
    return st.builds(
        Weight,
        file=st.sampled_from(files),
        at=_SHARE,
        value=st.sampled_from((0.0, 1.0, -3.0, 100.0, 7e4, 1e30, 1e-30, math.inf, -math.inf, math.nan)),
    )


def _table(files: list[str]) -> st.SearchStrategy[Mutation]:
    values: dict[str, tuple[Any, ...]] = {
        "name": ("x", "", "conv_in.weight", "../x", "\ud83d", "__metadata__", "a" * 1000),
        "dtype": ("F16", "BF16", "F64", "I64", "F8_E4M3", "X", None, 3),
        "shape": ([], [1], [0], [2**62, 2**62], [-1], [1.5], None, "x", [1] * 100, [10**30]),
        "data_offsets": ([0, 0], [0, 4], [4, 0], [0, 2**62], [-4, 0], [], None, [0], [0, 1, 2]),
    }
    return st.sampled_from(sorted(values)).flatmap(
        lambda key: st.builds(
            TensorField,
            file=st.sampled_from(files),
            tensor=_SHARE,
            key=st.just(key),
            value=st.sampled_from([json.dumps(value) for value in values[key]]),
        )
    )


def _graph(files: list[str]) -> st.SearchStrategy[Mutation]:
    values = {
        "location": ("/etc/passwd", "../../../etc/passwd", "gone", "", "model.onnx", "/dev/zero", "../x"),
        "offset": ("-1", "99999999999", "x", "1", "4096"),
        "length": ("-1", "99999999999", "x", "0", "3"),
        "op_type": ("Gone", "Identity", "Loop", "If", "", "Scan"),
        "domain": ("com.evil", "ai.onnx.ml", "com.microsoft", "../x"),
        "input": ("gone", ""),
    }
    return st.sampled_from(sorted(values)).flatmap(
        lambda key: st.builds(
            Graph,
            file=st.sampled_from(files),
            index=_SHARE,
            key=st.just(key),
            value=st.sampled_from(values[key]),
        )
    )


def _fields(folder: Path, files: list[str]) -> st.SearchStrategy[Mutation]:
    places: list[tuple[str, Keys]] = []
    for name in files:
        found = list(_keys(json.loads((folder / name).read_text("utf-8"))))
        places += [(name, keys) for keys in found] + [(name, ("new",))]
    values = st.one_of(st.sampled_from(VALUES), st.integers(), st.floats(), st.text(max_size=8)).map(
        json.dumps
    )
    return st.builds(
        lambda place, value, drop: SetField(file=place[0], keys=place[1], value=value, drop=drop),
        st.sampled_from(places),
        values,
        st.sampled_from((False, False, False, True)),
    )


def _keys(document: Any, above: Keys = ()) -> list[Keys]:
    items = document.items() if isinstance(document, dict) else enumerate(document)
    found = []
    for key, value in items:
        found.append((*above, key))
        if isinstance(value, (dict, list)) and len(value) < 40:
            found += _keys(value, (*above, key))
    return found

"""Weights streamed from files with gaps into files with padding: every byte, hash and overflow."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError
from conversions.weights import stream as module
from conversions.weights import stream_progress
from conversions.weights.binding import Binding
from conversions.weights.expression import Expression, Stored, Transpose
from conversions.weights.stream import Overflow, Streamed, stream

TYPES = {"F32": np.float32, "F16": np.float16}
WANTED = {np.float32: ir.DataType.FLOAT, np.float16: ir.DataType.FLOAT16}


class Files:
    """A storage of files in memory, which counts what is read and may break once."""

    label = "made"

    def __init__(
        self, contents: dict[str, bytes], *, known: dict[str, str] | None = None, local: bool = False
    ) -> None:
        self.contents, self.known, self.local = contents, known or {}, local
        self.read: list[tuple[str, int, int]] = []
        self.opened: list[str] = []
        self.closed = 0
        self.breaks_at: tuple[str, int] | None = None

    def names(self) -> Sequence[str]:
        return list(self.contents)

    def size_bytes(self, name: str) -> int:
        return len(self.contents[name])

    def version(self, name: str) -> str:
        return name

    def known_sha256(self, name: str) -> str:
        return self.known.get(name, "")

    def path_of(self, name: str) -> Path | None:
        return Path(name) if self.local else None

    def open(self, name: str) -> Any:
        self.opened.append(name)
        files = self

        class Reader:
            def read_into(self, buffer: memoryview, offset: int) -> None:
                if files.breaks_at is not None and (name, offset) >= files.breaks_at:
                    raise ConnectionError
                files.read.append((name, offset, len(buffer)))
                buffer[:] = files.contents[name][offset : offset + len(buffer)]

            def close(self) -> None:
                files.closed += 1

        return Reader()

    def read_bytes(self, name: str) -> int:
        return sum(count for file, _, count in self.read if file == name)


RANDOM = np.random.default_rng(9)


def stored(file: str, name: str, offset: int, values: np.ndarray) -> Stored:
    kind = "F16" if values.dtype == np.float16 else "F32"
    tensor = StoredTensor(
        name=name, file=file, dtype=kind, shape=values.shape, offset=offset, size_bytes=values.nbytes
    )
    return Stored(tensor=tensor)


def bound(name: str, source: Expression, kind: Any, offset: int) -> Binding:
    return Binding(initializer=name, source=source, dtype=WANTED[kind], shape=source.shape, offset=offset)


class Case:
    """Two files with gaps, of whose tensors two submodels are made, in another order and in other types."""

    def __init__(self) -> None:
        self.values = {
            "a0": RANDOM.standard_normal((30, 40)).astype(np.float32),
            "a1": RANDOM.standard_normal((50,)).astype(np.float16),
            "b0": RANDOM.standard_normal((20, 30)).astype(np.float16),
            "b1": RANDOM.standard_normal((7, 11)).astype(np.float32),
        }
        self.contents: dict[str, bytes] = {}
        self.stored: dict[str, Stored] = {}
        for file in "ab":
            content = RANDOM.bytes(64)
            for number in "01":
                name = file + number
                self.stored[name] = stored(file, name, len(content), self.values[name])
                content += self.values[name].tobytes() + RANDOM.bytes(16)
            self.contents[file] = content
        self.bindings = {
            "one": [
                bound("late", self.stored["b1"], np.float32, 8192),
                bound("early", self.stored["a0"], np.float16, 0),
                bound("same", self.stored["a1"], np.float16, 4096),
            ],
            "two": [bound("turned", Transpose(of=self.stored["b0"]), np.float32, 0)],
        }

    def expected(self) -> dict[str, bytes]:
        early = self.values["a0"].astype(np.float16).tobytes()
        same, late = self.values["a1"].tobytes(), self.values["b1"].tobytes()
        return {
            "one": early.ljust(4096, b"\0") + same.ljust(4096, b"\0") + late,
            "two": self.values["b0"].T.astype(np.float32).tobytes(),
        }

    def run(self, folder: Path, files: Files, told: list[int] | None = None) -> Streamed:
        paths = {name: folder / name for name in self.bindings}
        advance = [].append if told is None else told.append
        return stream(self.bindings, files, paths, folder / "progress", advance)


@pytest.fixture
def case() -> Case:
    return Case()


@pytest.mark.parametrize(("piece", "budget"), [(8 << 20, 192 << 20), (100, 192 << 20), (100, 1), (1, 500)])
def test_every_weight_is_written_where_it_belongs_and_all_is_hashed(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, budget: int
) -> None:
    monkeypatch.setattr(module, "_PIECE_BYTES", piece)
    monkeypatch.setattr(module, "_BUDGET_BYTES", budget)
    files, told = Files(case.contents), []
    result = case.run(tmp_path, files, told)
    expected = case.expected()
    assert {name: (tmp_path / name).read_bytes() for name in expected} == expected
    assert result.sha256 == {name: hashlib.sha256(each).hexdigest() for name, each in expected.items()}
    assert result.sources == {name: hashlib.sha256(each).hexdigest() for name, each in case.contents.items()}
    assert result.overflows == {}
    assert sum(told) == sum(values.nbytes for values in case.values.values())
    # Each byte is read once, the gaps for the hash alone; b0 is turned, which reads it as a whole.
    assert files.read_bytes("a") == len(case.contents["a"])
    assert files.closed == len(files.opened)


def test_files_are_read_from_their_beginnings_to_their_ends(case: Case, tmp_path: Path) -> None:
    files = Files(case.contents)
    case.run(tmp_path, files)
    for name in case.contents:
        tensors = [offset for file, offset, count in files.read if file == name and count > 64]
        assert tensors == sorted(tensors)


def test_a_piece_is_whole_granules_of_about_eight_mebibytes(case: Case) -> None:
    size = 3 << 20
    source = stored("a", "x", 0, np.broadcast_to(np.float32(0), (size,)))
    pieces = list(module._split("one", bound("x", source, np.float32, 0)))
    assert [(piece.first, piece.count) for piece in pieces] == [(0, 2 << 20), (2 << 20, 1 << 20)]
    assert [piece.source_bytes for piece in pieces] == [8 << 20, 4 << 20]
    turned = Transpose(of=case.stored["b0"])
    (whole,) = module._split("one", bound("x", turned, np.float32, 0))
    assert (whole.first, whole.count) == (0, 600)
    empty = stored("a", "x", 0, np.zeros((0, 3), np.float32))
    assert not list(module._split("one", bound("x", empty, np.float32, 0)))


def test_the_smallest_piece_is_one_granule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE_BYTES", 1)
    source = stored("a", "x", 0, np.zeros(3, np.float32))
    pieces = list(module._split("one", bound("x", source, np.float32, 0)))
    assert [(piece.first, piece.count) for piece in pieces] == [(0, 1), (1, 1), (2, 1)]


def test_bytes_that_are_elements_make_pieces_of_as_many_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE_BYTES", 10)
    tensor = StoredTensor(name="x", file="a", dtype="F8_E4M3", shape=(25,), offset=0, size_bytes=25)
    pieces = list(module._split("one", bound("x", Stored(tensor=tensor), np.float16, 0)))
    assert [(piece.count, piece.source_bytes) for piece in pieces] == [(10, 10), (10, 10), (5, 5)]


@pytest.mark.parametrize(
    ("budget", "begun"), [(30, [3, 4, 5, 5, 5]), (29, [2, 3, 4, 5, 5]), (1, [1, 2, 3, 4, 5])]
)
def test_as_many_pieces_are_on_the_way_as_the_budget_allows(
    monkeypatch: pytest.MonkeyPatch, budget: int, begun: list[int]
) -> None:
    monkeypatch.setattr(module, "_BUDGET_BYTES", budget)
    monkeypatch.setattr(module, "_PIECE_BYTES", 10)
    values = np.arange(25, dtype=np.float16)
    pieces = list(module._split("one", bound("x", stored("a", "x", 0, values), np.float16, 0)))
    assert [piece.source_bytes for piece in pieces] == [10] * 5
    files, submitted, found = Files({"a": values.tobytes()}), [], []

    class Pool(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            submitted.append(arguments)
            return super().submit(*arguments, **options)

    readers = module._ReaderPool(files)
    with Pool(2) as pool:
        for piece, loaded in module._in_order(pool, pieces, readers):
            found.append(len(submitted))
            assert bytes(loaded.data) == values[piece.first : piece.first + piece.count].tobytes()
    assert found == begun
    readers.close()


def overflows(folder: Path, values: list[float], kind: Any, given: Any = np.float32) -> tuple[Overflow, ...]:
    numbers = np.array(values, given)
    files = Files({"a": numbers.tobytes()})
    bindings = {"one": [bound("x", stored("a", "x", 0, numbers), kind, 0)]}
    with np.errstate(over="raise", invalid="raise"):
        result = stream(bindings, files, {"one": folder / "one"}, folder / "progress", lambda _: None)
    return result.overflows.get("one", ())


@pytest.mark.parametrize(
    ("values", "largest"),
    [
        ([0.0, -65519.0, 65519.996], None),
        ([0.0, 65520.0], 65520.0),
        ([1.0, -65520.0], 65520.0),
        ([70000.0, -80000.0], 80000.0),
        ([math.inf, 1.0], math.inf),
        ([-math.inf, 1.0], math.inf),
    ],
)
def test_what_float16_cannot_hold_is_told_with_its_largest_number(
    tmp_path: Path, values: list[float], largest: float | None
) -> None:
    expected = () if largest is None else (Overflow(initializer="x", largest=largest),)
    assert overflows(tmp_path, values, np.float16) == expected
    with np.errstate(over="ignore"):
        halves = np.array(values, np.float32).astype(np.float16)
    assert (tmp_path / "one").read_bytes() == halves.tobytes()


def test_numbers_that_are_none_are_told_whatever_the_type(tmp_path: Path) -> None:
    for place, (given, kind) in enumerate(
        (
            (np.float32, np.float16),
            (np.float32, np.float32),
            (np.float16, np.float16),
            (np.float16, np.float32),
        )
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        (found,) = overflows(folder, [1.0, math.nan, 2.0], kind, given)
        assert not math.isfinite(found.largest)
        (found,) = overflows(folder, [1.0, -math.inf], kind, given)
        assert found.largest == math.inf
    assert overflows(tmp_path, [1e38, -3e38], np.float32) == ()


def test_the_largest_of_all_pieces_is_told_and_a_nan_outlives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIECE_BYTES", 8)
    (found,) = overflows(tmp_path, [0, 70000.0, 0, 90000.0, 0, 80000.0], np.float16)
    assert found.largest == 90000.0
    (found,) = overflows(tmp_path, [0, 0, 0, 0, math.nan, 1], np.float16)
    assert math.isnan(found.largest)


def test_a_file_that_is_not_the_published_one_is_refused(case: Case, tmp_path: Path) -> None:
    right = hashlib.sha256(case.contents["a"]).hexdigest()
    (tmp_path / "progress").touch()
    for known in ({"a": right}, {}):
        case.run(tmp_path, Files(case.contents, known=known))
    with pytest.raises(ConversionError, match="made/b is not the file that was published") as caught:
        case.run(tmp_path, Files(case.contents, known={"a": right, "b": right}))
    assert caught.value.code == "checkpoint.corrupt"
    assert not (tmp_path / "progress").exists()


def test_a_local_file_s_known_hash_is_believed_and_its_gaps_are_not_read(case: Case, tmp_path: Path) -> None:
    files = Files(case.contents, known={"a": "hash of a"}, local=True)
    result = case.run(tmp_path, files)
    assert result.sources == {"a": "hash of a", "b": hashlib.sha256(case.contents["b"]).hexdigest()}
    assert files.read_bytes("a") == case.values["a0"].nbytes + case.values["a1"].nbytes
    assert files.read_bytes("b") == len(case.contents["b"])


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_progress, "_SAVE_INTERVAL_SECONDS", 0.0)


@pytest.mark.usefixtures("noted")
@pytest.mark.parametrize("known", [True, False])
def test_an_interrupted_stream_goes_on_and_reads_no_tensor_twice(
    case: Case, tmp_path: Path, known: bool
) -> None:
    hashes = {name: hashlib.sha256(each).hexdigest() for name, each in case.contents.items()}
    files = Files(case.contents, known=hashes if known else None)
    files.breaks_at = ("b", 0)
    with pytest.raises(ConnectionError):
        case.run(tmp_path, files)
    assert files.closed == len(files.opened)
    with (tmp_path / "one").open("ab") as file:
        file.write(b"beyond what was noted")

    again, told = Files(case.contents, known=hashes if known else None), []
    result = case.run(tmp_path, again, told)
    assert {name: (tmp_path / name).read_bytes() for name in case.bindings} == case.expected()
    assert result.sha256 == {name: hashlib.sha256(each).hexdigest() for name, each in case.expected().items()}
    assert result.sources == hashes
    assert told[0] == case.values["a0"].nbytes + case.values["a1"].nbytes
    assert sum(told) == sum(values.nbytes for values in case.values.values())
    # A file without a published hash is read again for it.
    assert again.read_bytes("a") == (0 if known else len(case.contents["a"]))


@pytest.mark.usefixtures("noted")
def test_overflows_of_the_interrupted_run_are_told_by_the_next(tmp_path: Path) -> None:
    numbers = np.full(10, 1e6, np.float32)
    contents = {"a": numbers.tobytes(), "b": numbers.tobytes()}
    bindings = {
        "one": [
            bound(name, stored(name, name, 0, numbers), np.float16, 32 * place)
            for place, name in enumerate("ab")
        ]
    }
    files = Files(contents)
    files.breaks_at = ("b", 0)
    arguments = ({"one": tmp_path / "one"}, tmp_path / "progress", lambda _: None)
    with pytest.raises(ConnectionError):
        stream(bindings, files, *arguments)
    result = stream(bindings, Files(contents), *arguments)
    assert result.overflows == {"one": tuple(Overflow(initializer=name, largest=1e6) for name in "ab")}

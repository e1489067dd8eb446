from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError
from conversions.weights import stream_progress
from conversions.weights.binding import Binding
from conversions.weights.expression import Stored
from conversions.weights.stream import Streamed, stream

COUNT = 40
ELEMENTS = 50_000
VALUES = np.random.default_rng(0).standard_normal((COUNT, ELEMENTS)).astype(np.float32)
CONTENT = VALUES.tobytes()


class Distant:
    """A storage that counts what is read from it, and breaks when asked to."""

    label = "distant"

    def __init__(self, *, breaks_at: int | None = None, known: str = "", content: bytes = CONTENT) -> None:
        self.read_bytes = 0
        self._breaks_at = breaks_at
        self._known = known
        self._content = content

    def names(self) -> Sequence[str]:
        return ["weights"]

    def size_bytes(self, _: str) -> int:
        return len(self._content)

    def version(self, _: str) -> str:
        return "1"

    def known_sha256(self, _: str) -> str:
        return self._known

    def path_of(self, _: str) -> Path | None:
        return None

    def read(self, _: str) -> bytes:
        raise NotImplementedError

    def open(self, _: str) -> Distant:
        return self

    def read_into(self, buffer: memoryview, offset: int) -> None:
        if self._breaks_at is not None and offset >= self._breaks_at:
            raise ConnectionError
        self.read_bytes += len(buffer)
        buffer[:] = self._content[offset : offset + len(buffer)]

    def close(self) -> None:
        pass


def bindings() -> dict[str, list[Binding]]:
    """Every other tensor goes to another submodel; the second holds them in float16."""
    found: dict[str, list[Binding]] = {"plain": [], "half": []}
    for index in range(COUNT):
        name = ("plain", "half")[index % 2]
        dtype = ir.DataType.FLOAT if name == "plain" else ir.DataType.FLOAT16
        end = found[name][-1].offset + found[name][-1].size_bytes if found[name] else 0
        source = StoredTensor(
            name=str(index),
            file="weights",
            dtype="F32",
            shape=(ELEMENTS,),
            offset=index * ELEMENTS * 4,
            size_bytes=ELEMENTS * 4,
        )
        found[name].append(
            Binding(
                initializer=str(index),
                source=Stored(tensor=source),
                dtype=dtype,
                shape=(ELEMENTS,),
                offset=-(-end // 4096) * 4096,
            )
        )
    return found


@pytest.fixture(autouse=True)
def every_piece_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_progress, "_SAVE_INTERVAL_SECONDS", 0.0)


def run(folder: Path, storage: Distant) -> Streamed:
    paths = {name: folder / name for name in ("plain", "half")}
    return stream(bindings(), storage, paths, folder / "progress", lambda _: None)


def broken_off(folder: Path) -> None:
    folder.mkdir()
    with pytest.raises(ConnectionError):
        run(folder, Distant(breaks_at=len(CONTENT) // 2))


def test_a_broken_stream_goes_on_between_two_tensors(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", Distant())
    broken_off(tmp_path / "broken")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    rest = Distant(known=sha256)
    resumed = run(tmp_path / "broken", rest)
    assert rest.read_bytes == len(CONTENT) // 2
    assert resumed.sha256 == whole.sha256
    assert resumed.sources == whole.sources == {"weights": sha256}
    for name in ("plain", "half"):
        content = (tmp_path / "broken" / name).read_bytes()
        assert content == (tmp_path / "whole" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == whole.sha256[name]


def test_a_folder_s_file_is_hashed_whole_even_so(tmp_path: Path) -> None:
    broken_off(tmp_path / "broken")
    resumed = run(tmp_path / "broken", Distant())
    assert resumed.sources == {"weights": hashlib.sha256(CONTENT).hexdigest()}


@pytest.mark.parametrize("harm", ["shorter", "changed", "longer", "notes torn"])
def test_what_was_noted_is_checked_before_it_is_built_on(tmp_path: Path, harm: str) -> None:
    broken_off(tmp_path / "broken")
    path = tmp_path / "broken" / "half"
    content = bytearray(path.read_bytes())
    if harm == "shorter":
        path.write_bytes(content[:-5])
    elif harm == "longer":
        path.write_bytes(content + b"torn piece")
    elif harm == "changed":
        content[100] ^= 1
        path.write_bytes(content)
    else:
        (tmp_path / "broken" / "progress").write_text('{"work": ')
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", Distant())
    again = Distant(known=hashlib.sha256(CONTENT).hexdigest())
    assert run(tmp_path / "broken", again).sha256 == whole.sha256
    assert path.read_bytes() == (tmp_path / "whole" / "half").read_bytes()
    assert again.read_bytes == len(CONTENT) // (2 if harm == "longer" else 1)


def test_bytes_that_were_not_published_are_not_built_on_by_the_next_run(tmp_path: Path) -> None:
    known = hashlib.sha256(CONTENT).hexdigest()
    altered = bytearray(CONTENT)
    altered[-1] ^= 1
    folder = tmp_path / "altered"
    folder.mkdir()
    with pytest.raises(ConversionError, match="not the file that was published"):
        run(folder, Distant(known=known, content=bytes(altered)))
    again = Distant(known=known)
    run(folder, again)
    assert again.read_bytes == len(CONTENT)

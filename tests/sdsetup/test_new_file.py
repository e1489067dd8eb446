"""Files that are written whole, under names that nothing had before."""

from __future__ import annotations

import errno
import itertools
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from sdsetup import new_file
from sdsetup.errors import SetupError

Usage = namedtuple("Usage", "free")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_file_that_is_there_is_replaced_only_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "image.png"
    new_file.write(path, b"first")
    with pytest.raises(FileExistsError):
        new_file.write(path, b"second")
    assert files(tmp_path) == {"a/b/image.png": b"first"}
    new_file.write(path, b"third", overwrite=True)
    assert files(tmp_path) == {"a/b/image.png": b"third"}


def test_a_file_system_without_hard_links_replaces_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    new_file.write(tmp_path / "a.png", b"first")
    with pytest.raises(FileExistsError):
        new_file.write(tmp_path / "a.png", b"second")
    assert files(tmp_path) == {"a.png": b"first"}


def test_names_go_on_with_numbers(tmp_path: Path) -> None:
    path = tmp_path / "cat.final.png"
    names = [name.name for name in itertools.islice(new_file.names_after(path), 4)]
    assert names == ["cat.final.png", "cat.final-2.png", "cat.final-3.png", "cat.final-4.png"]
    assert new_file.free_name(path) == path
    assert [new_file.write_beside(path, content).name for content in (b"1", b"2")] == names[:2]
    assert new_file.free_name(path).name == names[2]
    assert files(tmp_path) == {names[0]: b"1", names[1]: b"2"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights of their own")
def test_a_link_to_nothing_has_a_name_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.symlink_to(tmp_path / "gone")
    assert new_file.free_name(path).name == "a-2.png"


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"")
    for call in (
        lambda path: new_file.write(path, b""),
        lambda path: new_file.demand_room([path], 1),
    ):
        with pytest.raises(NotADirectoryError) as caught:
            call(tmp_path / "folder" / "a.png")
        assert caught.value.filename == str(tmp_path / "folder")
        assert caught.value.errno == errno.ENOTDIR


def test_room_is_seen_for_all_files_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_file.shutil, "disk_usage", lambda _: Usage(1000))
    folder = tmp_path / "images"
    paths = [folder / "a.png", folder / "b.png"]
    new_file.demand_room(paths, 500)
    new_file.demand_room(paths[:1], 1000)
    assert folder.is_dir()
    with pytest.raises(SetupError) as caught:
        new_file.demand_room(paths, 501)
    assert caught.value.code == "disk.full"
    assert caught.value.message == f"1002 B are needed in {folder}, and 1000 B are free."
    assert not files(tmp_path)


def test_names_are_tried_without_touching_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.ttt").write_bytes(b"mine")
    (tmp_path / "a.png").write_bytes(b"mine too")
    new_file.demand_room([tmp_path / "a.png"], 1)
    assert files(tmp_path) == {"a.ttt": b"mine", "a.png": b"mine too"}
    if sys.platform != "win32":
        with pytest.raises(OSError, match="too long") as caught:
            new_file.demand_room([tmp_path / f"{'x' * 300}.png"], 1)
        assert caught.value.errno == errno.ENAMETOOLONG


LIMITED = """
import resource, sys
from pathlib import Path
from sdsetup import new_file
from sdsetup.errors import SetupError
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
new_file.demand_room([Path(sys.argv[1])], 2048)
try:
    new_file.demand_room([Path(sys.argv[1])], 2049)
except SetupError as error:
    print(error.code, error.message, error.hint, sep="|")
resource.setrlimit(resource.RLIMIT_FSIZE, before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_limit_of_sizes_is_named(tmp_path: Path) -> None:
    command: list[Any] = [sys.executable, "-B", "-c", LIMITED, tmp_path / "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, message, hint = done.stdout.strip().split("|")
    assert code == "os.file_too_large"
    assert message == f"{tmp_path / 'a.png'} may take 2.0 KiB, and files may have 2.0 KiB here."
    assert "ulimit -f" in hint

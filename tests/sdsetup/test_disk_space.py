"""Free space by volume, and sizes as people read them."""

from __future__ import annotations

import sys
from collections import namedtuple
from pathlib import Path

import pytest

from sdsetup import disk_space
from sdsetup.errors import SetupError

MIB = 2**20
Usage = namedtuple("Usage", "free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[Path, int]:
    """Free bytes by folder, in place of those of the disks that the tests share with others."""
    known: dict[Path, int] = {}
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda place: Usage(known[place]))
    return known


def test_what_is_left_for_others_counts_as_used(free: dict[Path, int], tmp_path: Path) -> None:
    free[tmp_path] = 1000 * MIB
    disk_space.require([(tmp_path / "not" / "there", 744 * MIB)])
    with pytest.raises(SetupError) as caught:
        disk_space.require([(tmp_path / "not" / "there", 745 * MIB)])
    assert caught.value.code == "disk.full"
    assert caught.value.message == (
        f"745.0 MiB are needed on the disk of {tmp_path}, and 256.0 MiB to spare; 1000.0 MiB are free."
    )
    free[tmp_path] = 0
    disk_space.require([(tmp_path, 0)])


def test_folders_of_one_volume_share_its_space(free: dict[Path, int], tmp_path: Path) -> None:
    """A volume is called by the first folder on it."""
    free[tmp_path] = 1000 * MIB
    (tmp_path / "b").mkdir()
    needs = [(tmp_path, 300 * MIB), (tmp_path / "b", 300 * MIB), (tmp_path / "c", 144 * MIB)]
    disk_space.require(needs)
    with pytest.raises(SetupError, match=r"^745\.0 MiB are needed"):
        disk_space.require([*needs, (tmp_path / "d", MIB)])


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second volume")
def test_volumes_are_counted_one_by_one(free: dict[Path, int], tmp_path: Path) -> None:
    free.update({tmp_path: 1000 * MIB, Path("/proc"): 300 * MIB})
    disk_space.require([(tmp_path, 700 * MIB), (Path("/proc"), 44 * MIB)])
    with pytest.raises(SetupError, match=r"on the disk of /proc, .* spare; 300\.0 MiB are free"):
        disk_space.require([(tmp_path, 700 * MIB), (Path("/proc"), 45 * MIB)])


def test_paths_below_a_folder_are_on_its_volume(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert disk_space.same_volume(tmp_path / "file", tmp_path / "a" / "b")
    if sys.platform == "linux":
        assert not disk_space.same_volume(Path("/proc"), Path("/"))
        assert not disk_space.same_volume(tmp_path / "file", Path("/proc/version"))


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (2**30, "1.0 GiB"),
        (3_438_167_540, "3.2 GiB"),
        (2**41, "2048.0 GiB"),
    ],
)
def test_sizes_are_in_the_largest_unit_that_they_fill(size_bytes: int, text: str) -> None:
    assert disk_space.human_size(size_bytes) == text

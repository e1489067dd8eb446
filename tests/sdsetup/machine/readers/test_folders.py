import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("reads what Linux writes", allow_module_level=True)

from sdsetup.machine.facts import Questions
from sdsetup.machine.readers import folders, machine


def test_the_innermost_mount_names_the_file_system(tmp_path: Path) -> None:
    """Stands in for a FAT volume where the kernel cannot mount one."""
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 8:17 / /media/my\\040stick rw - vfat /dev/sdb1 rw\n"
        "41 22 0:30 / /media rw - tmpfs tmpfs rw\n"
    )
    assert folders._mounted(Path("/media/my stick/packages"), table) == "vfat"
    assert folders._mounted(Path("/media/other"), table) == "tmpfs"
    assert folders._mounted(Path("/home"), table) == "ext4"


def test_the_cache_is_where_the_hub_s_library_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert folders.cache_folder() == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folders.cache_folder() == tmp_path / "xdg/huggingface/hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert folders.cache_folder() == tmp_path / "home/hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert folders.cache_folder() == tmp_path / "cache"


def test_looking_at_folders_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    before = sorted(tmp_path.rglob("*"))
    seen = folders.read(Questions(output=tmp_path / "deep" / "er"))
    assert sorted(tmp_path.rglob("*")) == before
    assert all(folder.writable for folder in seen)
    assert seen[1].probed == str(tmp_path)


def test_a_machine_is_read_from_what_linux_tells(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": "MemTotal: 16384 kB\nMemAvailable: 8192 kB\n"
        "CommitLimit: 100 kB\nCommitted_AS: 90 kB\n",
        "proc/cpuinfo": "model name : Ryzen\nflags : fpu avx avx2 f16c\n",
        "proc/version": "Linux version 5.15 microsoft-standard-WSL2",
        "proc/sys/vm/overcommit_memory": "2",
        "sys/fs/cgroup/memory.max": str(4096 * 1024),
        "etc/os-release": 'NAME=X\nPRETTY_NAME="Some Linux 1"\n',
        "opt/rocm/.info/version": "6.4.1",
        ".dockerenv": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    seen = machine._linux(tmp_path)
    assert (seen.release, seen.cpu, seen.rocm, seen.container) == ("Some Linux 1", "Ryzen", "6.4.1", "Docker")
    assert seen.wsl
    assert seen.ram_bytes == 4096 * 1024
    assert seen.cpu_features == {"avx", "avx2", "f16c"}
    assert (seen.commit_limit_bytes, seen.commit_used_bytes) == (100 * 1024, 90 * 1024)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    for name in (*caches, "TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("bare")
def test_the_first_variable_that_is_set_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (folders.cache_variable(), folders._temporary_variable()) == ("HF_HOME", "TMPDIR")
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
        assert folders.cache_variable() == name
        assert folders.cache_folder().is_relative_to(tmp_path / name)
    for name in ("TMP", "TEMP", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
        assert folders._temporary_variable() == name
    monkeypatch.setenv("HF_HUB_CACHE", "$TMPDIR/x")
    assert folders.cache_folder() == tmp_path / "x"


@pytest.mark.usefixtures("bare")
def test_a_folder_is_told_with_what_can_be_made_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    cache, output, temporary = folders.read(Questions(output=tmp_path / "a" / "b"))
    assert (cache.role, cache.path, cache.variable, cache.set_by) == (
        *("cache", str(tmp_path / "hub")),
        *("HF_HOME", "HF_HOME"),
    )
    assert (output.role, output.path, output.variable, output.set_by) == (
        "output",
        str(tmp_path / "a" / "b"),
        "",
        "",
    )
    assert (temporary.role, temporary.variable, temporary.set_by) == ("temp", "TMPDIR", "")
    for folder in (cache, output):
        assert folder.probed == str(tmp_path)
        assert (folder.writable, folder.symlinks, folder.hard_links, folder.error) == (True, True, True, "")
        assert folder.case_sensitive
        assert folder.free_bytes is not None
        assert folder.total_bytes is not None
        assert 0 < folder.free_bytes < folder.total_bytes
        assert folder.file_system == folders._mounted(tmp_path.resolve()) != ""


def test_a_file_in_the_way_and_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    found = folders._try("output", tmp_path / "file" / "x", "")
    assert (found.writable, found.error) == (False, f"{tmp_path / 'file'} is a file, not a folder")
    found = folders._try("output", Path("/proc/x"), "")
    assert found.writable is False
    assert found.error
    assert "Errno" not in found.error


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    def refuse() -> None:
        raise OSError(1, "no")

    assert not folders._can(refuse, tmp_path)
    assert not folders._can(lambda: None, tmp_path / "nothing")
    assert folders._can(lambda: None, tmp_path)
    assert folders._said(OSError(1, "no")) == "no"
    assert folders._said(OSError("alone")) == "alone"


def test_the_last_of_equal_mounts_counts_and_none_is_unknown(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    assert folders._mounted(Path("/a"), table) == ""
    table.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "23 1 8:1 / /a rw - xfs /dev/x rw\n"
        "24 1 8:1 / /a rw - fuse.x y rw\n"
    )
    assert folders._mounted(Path("/a/b"), table) == "fuse.x"
    assert folders._mounted(Path("/ab"), table) == "ext4"


@pytest.mark.usefixtures("bare")
def test_a_system_that_has_no_place_and_tells_no_space_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for a machine whose folders for temporary files are all full or read-only."""

    def refuse(*_: object) -> str:
        raise OSError(28, "no space")

    monkeypatch.setattr(folders.tempfile, "gettempdir", refuse)
    monkeypatch.setattr(folders.shutil, "disk_usage", refuse)
    _, output, temporary = folders.read(Questions(output=tmp_path))
    assert temporary.path == "/tmp"  # noqa: S108 - what is assumed where nothing is set
    assert (output.error, output.free_bytes, output.writable) == ("no space", None, True)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "x"))
    assert folders.read(Questions(output=tmp_path))[2].path == str(tmp_path / "x")

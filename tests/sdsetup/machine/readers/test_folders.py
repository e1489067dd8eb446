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

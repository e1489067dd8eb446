"""The machine as Linux and macOS tell it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from sdsetup.machine.facts import Machine, Questions
from sdsetup.machine.readers import machine

KIB = 1024


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_CONNECTION", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


MEMORY = (
    "MemTotal: 16384 kB\nMemAvailable: 8192 kB\nCommitLimit: 100 kB\nCommitted_AS: 90 kB\nMemTotal: 1 kB\n"
)


def test_a_bare_system_is_mostly_unknown(tmp_path: Path) -> None:
    assert machine._linux(tmp_path) == Machine(
        platform="linux",
        release=f"Linux {platform.release()}",
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
    )


def test_what_linux_tells_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "1.2.3.4")
    root = tree(
        tmp_path,
        proc__meminfo=MEMORY,
        proc__cpuinfo="model name : Ryzen 9\nmodel name : other\nflags : fpu sse4_2 avx2 avx512f\n",
        proc__version="Linux version 6.1 (gcc)",
        proc__sys__vm__overcommit_memory="0\n",
        etc__os_release="",
    )
    (root / "etc" / "os-release").write_text(
        'NAME=X\nPRETTY_NAME="Some = Linux 1"\nPRETTY_NAME=no\n', "utf-8"
    )
    assert machine._linux(root) == Machine(
        platform="linux",
        release="Some = Linux 1",
        architecture=platform.machine(),
        cpu="Ryzen 9",
        cpu_features=frozenset({"sse4_2", "avx2", "avx512f"}),
        cores=os.cpu_count() or 1,
        ram_bytes=16384 * KIB,
        ram_available_bytes=8192 * KIB,
        remote_session="SSH",
    )


def test_a_strict_system_tells_what_is_promised(tmp_path: Path) -> None:
    root = tree(tmp_path, proc__meminfo=MEMORY, proc__sys__vm__overcommit_memory="2")
    seen = machine._linux(root)
    assert (seen.commit_limit_bytes, seen.commit_used_bytes) == (100 * KIB, 90 * KIB)


def test_an_arm_names_other_fields(tmp_path: Path) -> None:
    seen = machine._linux(tree(tmp_path, proc__cpuinfo="Hardware : Pi\nFeatures : fp asimd fphp\n"))
    assert (seen.cpu, seen.cpu_features) == ("Pi", {"asimd", "fphp"})


@pytest.mark.parametrize(
    ("limit", "total", "available"),
    [
        ("max", 16384, 8192),
        (str(20000 * KIB), 16384, 8192),
        (str(16384 * KIB), 16384, 8192),
        (str(12000 * KIB), 12000, 8192),
        (str(4096 * KIB), 4096, 4096),
    ],
)
@pytest.mark.parametrize(
    "version", ["sys__fs__cgroup__memory.max", "sys__fs__cgroup__memory__memory.limit_in_bytes"]
)
def test_a_group_s_limit_is_the_memory(
    limit: str, total: int, available: int, version: str, tmp_path: Path
) -> None:
    seen = machine._linux(tree(tmp_path, **{"proc__meminfo": MEMORY, version: limit}))
    assert (seen.ram_bytes, seen.ram_available_bytes) == (total * KIB, available * KIB)


def test_a_limit_without_what_is_available(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        proc__meminfo="MemTotal: 16384 kB\nMemAvailable: many",
        **{"sys__fs__cgroup__memory.max": "5"},
    )
    seen = machine._linux(root)
    assert (seen.ram_bytes, seen.ram_available_bytes) == (5, 5)


@pytest.mark.parametrize(
    ("file", "container"), [(".dockerenv", "Docker"), ("run__.containerenv", "Podman"), ("x", "Kubernetes")]
)
def test_containers_are_told_by_their_marks(
    file: str, container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path, **{file: ""})
    assert machine._container(root) == ("" if container == "Kubernetes" else container)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert machine._container(root) == container


def test_a_subsystem_of_windows_and_rocm_are_seen(tmp_path: Path) -> None:
    root = tree(tmp_path, proc__version="Linux 5.15 Microsoft", **{"opt__rocm__.info__version": "6.4.1\n"})
    seen = machine._linux(root)
    assert (seen.wsl, seen.rocm) == (True, "6.4.1")


def test_macos_is_read_by_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"hw.memsize": "17179869184", "machdep.cpu.brand_string": "Apple M2"}
    monkeypatch.setattr(machine, "_sysctl", told.__getitem__)
    monkeypatch.setenv("SSH_CONNECTION", "1.2.3.4")
    wanted = Machine(
        platform="darwin",
        release=platform.mac_ver()[0],
        architecture=platform.machine(),
        cpu="Apple M2",
        cores=os.cpu_count() or 1,
        ram_bytes=16 * KIB**3,
        remote_session="SSH",
    )
    assert machine._macos() == wanted
    told["hw.memsize"] = "?"
    monkeypatch.delenv("SSH_CONNECTION")
    seen = machine._macos()
    assert (seen.ram_bytes, seen.remote_session) == (None, "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads this machine as Linux")
def test_this_machine_is_read(tmp_path: Path) -> None:
    seen = machine.read(Questions(output=tmp_path))
    assert seen.platform == "linux"
    assert seen.ram_bytes is not None
    assert seen.ram_bytes > 10**8
    assert machine._sysctl("no.such.name") == ""

"""The computer and its operating system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from sdsetup.machine.facts import Machine, Questions

# What numeric kernels look for; the rest of a CPU's flags means nothing here.
_FEATURES = frozenset(
    {"sse4_2", "avx", "avx2", "f16c", "fma", "avx512f", "avx512_fp16", "amx_tile", "asimd", "fphp"}
)


def read(_questions: Questions) -> Machine:
    """Read the machine by the means of its platform."""
    if sys.platform == "win32":
        from sdsetup.machine.readers import windows

        return windows.machine()
    if sys.platform == "darwin":
        return _macos()
    return _linux()


def _linux(root: Path = Path("/")) -> Machine:
    memory = _table(root / "proc/meminfo")
    cpu = _table(root / "proc/cpuinfo")
    total = _kibibytes(memory.get("MemTotal"))
    available = _kibibytes(memory.get("MemAvailable"))
    limit = _group_limit(root)
    if limit is not None and total is not None and limit < total:
        total, available = limit, min(available or limit, limit)
    enforced = _text(root / "proc/sys/vm/overcommit_memory") == "2"
    return Machine(
        platform="linux",
        release=_distribution(root),
        architecture=platform.machine(),
        cpu=cpu.get("model name", cpu.get("Hardware", "")),
        cpu_features=_FEATURES & set(cpu.get("flags", cpu.get("Features", "")).split()),
        cores=os.cpu_count() or 1,
        ram_bytes=total,
        ram_available_bytes=available,
        # Without strict accounting the kernel promises more than this limit, so it means nothing.
        commit_limit_bytes=_kibibytes(memory.get("CommitLimit")) if enforced else None,
        commit_used_bytes=_kibibytes(memory.get("Committed_AS")) if enforced else None,
        wsl="microsoft" in _text(root / "proc/version").lower(),
        container=_container(root),
        remote_session="SSH" if os.environ.get("SSH_CONNECTION") else "",
        rocm=_text(root / "opt/rocm/.info/version"),
    )


def _macos() -> Machine:
    total = _sysctl("hw.memsize")
    return Machine(
        platform="darwin",
        release=platform.mac_ver()[0],
        architecture=platform.machine(),
        cpu=_sysctl("machdep.cpu.brand_string"),
        cores=os.cpu_count() or 1,
        ram_bytes=int(total) if total.isdigit() else None,
        remote_session="SSH" if os.environ.get("SSH_CONNECTION") else "",
    )


def _sysctl(name: str) -> str:
    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name],
            capture_output=True, text=True, timeout=2, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def _container(root: Path) -> str:
    if (root / ".dockerenv").exists():
        return "Docker"
    if (root / "run/.containerenv").exists():
        return "Podman"
    return "Kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else ""


def _group_limit(root: Path) -> int | None:
    for place in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _text(root / place)
        if text.isdigit():
            return int(text)
    return None


def _distribution(root: Path) -> str:
    for line in _text(root / "etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return f"Linux {platform.release()}"


def _table(path: Path) -> dict[str, str]:
    """Read ``name: value`` lines; the first of a name wins."""
    found: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def _kibibytes(text: str | None) -> int | None:
    number = (text or "").removesuffix(" kB")
    return int(number) * 1024 if number.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

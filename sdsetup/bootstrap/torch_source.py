"""Where torch comes from: on Linux PyPI's is CUDA's, gigabytes for a person who has no NVIDIA card.

PyTorch's CPU builds carry the label ``+cpu``, which no package of PyPI's may have. So asking for
``torch==VERSION+cpu`` finds a CPU build or nothing, and nothing large moves before it is known.

Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdsetup.bootstrap import child_environment, known_good, socks_relay
from sdsetup.bootstrap.child_environment import PipSettings
from sdsetup.errors import SetupError

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INDEX_VARIABLE = "SDSETUP_TORCH_INDEX"
_NVIDIA = "0x10de"
_LIMIT_SECONDS = 600.0  # an index without metadata makes pip fetch the file, 190 MB


@dataclass(frozen=True, kw_only=True)
class TorchSource:
    """Which torch an installation takes.

    Attributes:
        requirement: What pip is asked for besides; empty where any torch will do, or none is taken.
        index: An index that pip looks at besides its own; empty where its own will do.
        left_out: No fitting torch was found, so none is installed.
    """

    requirement: str = ""
    index: str = ""
    left_out: bool = False


ANY = TorchSource()


def has_nvidia_card(root: Path = Path("/")) -> bool:
    """Tell whether this Linux machine has a graphics card of NVIDIA's, or its driver."""
    if (root / "proc/driver/nvidia/version").exists() or (root / "dev/nvidiactl").exists():
        return True
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            vendor = (device / "vendor").read_text(encoding="ascii").strip()
            kind = (device / "class").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if vendor == _NVIDIA and kind.startswith("0x03"):  # a display controller
            return True
    return bool((root / "dev/dxg").exists() and (root / "usr/lib/wsl/lib/libcuda.so.1").exists())


def is_restricted(flavour: str, platform: str = sys.platform) -> bool:
    """Tell whether an installation must not take PyPI's torch."""
    return platform == "linux" and flavour != "cuda" and not has_nvidia_card()


def find(python: Path, flavour: str, installed_version: str, settings: PipSettings) -> TorchSource:
    """Look where a torch for this machine can be had; no wheel is downloaded from an index that says enough.

    Args:
        python: The environment's Python; its pip knows ``--report``.
        flavour: The ONNX Runtime that is installed beside it.
        installed_version: The version of the torch that is installed, or empty.
        settings: pip's settings.
    """
    wanted = known_good.versions()["torch"]
    if not is_restricted(flavour) or installed_version.partition("+")[0] == wanted:
        return ANY
    requirement = f"torch=={wanted}+cpu"
    if is_offered(python, requirement, (), settings):
        return TorchSource(requirement=requirement)
    if settings.kept.get("no-index", "0") not in {"", "0", "false", "no"}:
        return TorchSource(left_out=True)
    index = os.environ.get(INDEX_VARIABLE, "") or CPU_INDEX
    limits = ("--retries", "1", "--timeout", "10", "--index-url", index)
    if is_offered(python, requirement, limits, settings):
        return TorchSource(requirement=requirement, index=index)
    return TorchSource(left_out=True)


def not_found() -> SetupError:
    """Say that no torch for this machine can be had, where one is wanted."""
    return SetupError(
        "install.no-torch",
        "PyPI's torch is CUDA's, gigabytes for a machine without an NVIDIA card, and"
        f" {CPU_INDEX} has none here or is not reached.",
        f"set {INDEX_VARIABLE} to a mirror of it, or repeat this once it is reached.",
    )


def is_offered(python: Path, requirement: str, options: Sequence[str], settings: PipSettings) -> bool:
    """Ask pip whether there is a file for a requirement, without its dependencies."""
    argv = [
        *(str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"),
        *("--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", "-", *options, requirement),
    ]
    try:
        with socks_relay.reachable(child_environment.for_pip(settings)) as variables:
            answer = subprocess.run(
                argv, env=variables, capture_output=True, encoding="utf-8", errors="replace",
                timeout=_LIMIT_SECONDS, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        return bool(json.loads(answer.stdout)["install"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return False

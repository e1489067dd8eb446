"""The known-good set: the versions that were tested together, as a pip constraints file.

Standard library only: the bootstrap reads it before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).with_name("constraints.txt")

_PIN = re.compile(
    r"""^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)"""
    r"""(\s*;\s*sys_platform\s*(?P<operator>[!=]=)\s*["'](?P<platform>\w+)["'])?\s*(\#.*)?$"""
)


def normalized(name: str) -> str:
    """Write a distribution's name as indexes compare it: ``onnx_ir`` and ``ONNX-IR`` are ``onnx-ir``.

    Source: PyPA specification "Name normalization".
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(platform: str = sys.platform) -> dict[str, str]:
    """Read the set as it applies to a platform.

    Args:
        platform: A value of ``sys.platform``.

    Returns:
        Version by normalized distribution name.

    Raises:
        ValueError: A line of the file is no exact pin.
    """
    pins: dict[str, str] = {}
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pin = _PIN.match(line)
        if pin is None:
            raise ValueError(f"{CONSTRAINTS.name} has a line that is no exact pin: {line!r}")
        wanted = pin["platform"]
        if wanted is None or (pin["operator"] == "==") == (platform == wanted):
            pins[normalized(pin["name"])] = pin["version"]
    return pins

"""Adapters on macOS, by its own ``system_profiler``."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from sdsetup.machine.adapters.adapter import Adapter

_UNITS = {"MB": 1024**2, "GB": 1024**3}


def read() -> tuple[Adapter, ...]:
    """Read every adapter.

    Raises:
        OSError: ``system_profiler`` failed or said something else.
    """
    try:
        answer = subprocess.run(
            ["/usr/sbin/system_profiler", "SPDisplaysDataType", "-json"],
            capture_output=True, timeout=5, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.SubprocessError as error:
        raise OSError(f"system_profiler failed: {error}") from error
    return parse(answer.stdout)


def parse(document: bytes) -> tuple[Adapter, ...]:
    """Understand what ``system_profiler SPDisplaysDataType -json`` prints.

    Raises:
        OSError: It is something else.
    """
    try:
        displays = json.loads(document)["SPDisplaysDataType"]
        return tuple(_describe(display, index) for index, display in enumerate(displays))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError("system_profiler's answer is not understood") from error


def _describe(display: dict[str, Any], index: int) -> Adapter:
    vendor = str(display.get("spdisplays_vendor", ""))
    vendor_id = 0x106B if "Apple" in vendor else 0
    number = re.search(r"0x[0-9a-fA-F]{4}", vendor)
    if number:
        vendor_id = int(number[0], 16)
    for name, known in (("amd", 0x1002), ("intel", 0x8086)):
        if name in vendor.lower() and not vendor_id:
            vendor_id = known
    device = re.fullmatch(r"0x[0-9a-fA-F]{4}", str(display.get("spdisplays_device-id", "")))
    size = re.match(
        r"(\d+) (MB|GB)", str(display.get("spdisplays_vram", display.get("_spdisplays_vram", "")))
    )
    shared = "spdisplays_vram_shared" in display or vendor_id == 0x106B
    return Adapter(
        index=index,
        name=str(display.get("sppci_model", display.get("_name", "unknown"))),
        vendor_id=vendor_id,
        device_id=int(device[0], 16) if device else 0,
        vram_bytes=int(size[1]) * _UNITS[size[2]] if size else None,
        # The key of older releases, the value of newer ones: spdisplays_metal, spdisplays_metal3.
        driver="Metal" if any("metal" in f"{key} {value}" for key, value in display.items()) else "",
        integrated=shared,
    )

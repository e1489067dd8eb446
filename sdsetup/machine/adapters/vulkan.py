"""Adapters as ``vulkaninfo --summary`` tells them: exact names, kinds, and the driver in use."""

from __future__ import annotations

import re
from collections.abc import Iterator

from conversions.providers.adapter_ranking import is_software
from sdsetup.machine.adapters.external_tools import AdapterReading, ask, number, words


def read() -> tuple[AdapterReading, ...]:
    """Ask for every adapter; empty where there is no answer."""
    return parse(ask("vulkaninfo", "--summary"))


def parse(text: str) -> tuple[AdapterReading, ...]:
    """Understand the list of devices; of an adapter that two drivers offer, only the first driver's."""
    drivers: dict[tuple[int, int], str] = {}
    found = []
    for device in _devices(text):
        vendor_id, device_id = number(device.get("vendorID")), number(device.get("deviceID"))
        name = words(device.get("deviceName"))
        if not vendor_id or not name:
            continue
        driver = device.get("driverName", "")
        if drivers.setdefault((vendor_id, device_id), driver) != driver:
            continue
        kind = device.get("deviceType", "").removeprefix("PHYSICAL_DEVICE_TYPE_")
        found.append(
            AdapterReading(
                vendor_id=vendor_id,
                device_id=device_id,
                name=name,
                driver_version=words(device.get("driverInfo")) or words(device.get("driverVersion")),
                software=kind == "CPU" or is_software(name),
                integrated={"INTEGRATED_GPU": True, "DISCRETE_GPU": False}.get(kind),
            )
        )
    return tuple(found)


def _devices(text: str) -> Iterator[dict[str, str]]:
    """Read ``GPU0:`` and the indented ``field = value`` lines that follow it, device by device."""
    for block in re.split(r"^GPU\d+:\s*$", text, flags=re.MULTILINE)[1:]:
        lines = re.findall(r"^\s+(\w+)\s+= (.*)$", block, flags=re.MULTILINE)
        yield {field: value.strip() for field, value in lines}

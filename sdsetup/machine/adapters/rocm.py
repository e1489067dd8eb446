"""AMD's adapters as the tools of ROCm tell them; the first that answers is believed.

``amd-smi`` follows ``rocm-smi``, which is still what older releases bring; ``rocminfo`` comes with the
smallest installation.

Source: what amd-smi of ROCm 6.1 to 7.0, rocm-smi of ROCm 5.2 to 6.4 and rocminfo print.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from sdsetup.machine.adapters.external_tools import (
    AdapterReading,
    ask,
    number,
    pci_address,
    size_bytes,
    words,
)

_AMD = 0x1002
_MEBIBYTE = 1024**2
_MOST_STARTS = 100


def read() -> tuple[AdapterReading, ...]:
    """Ask for every adapter; empty where there is no answer."""
    return (
        parse_amd_smi(ask("amd-smi", "static", "--asic", "--bus", "--driver", "--vram", "--json"))
        or parse_rocm_smi(
            ask(
                "rocm-smi", "--showproductname", "--showid", "--showbus", "--showmeminfo", "vram",
                "--showdriverversion", "--json",
            )
        )
        or parse_rocminfo(ask("rocminfo"))
    )  # fmt: skip


def parse_amd_smi(text: str) -> tuple[AdapterReading, ...]:
    """Understand a list of adapters, which newer releases put below ``gpu_data``."""
    document = _json(text)
    adapters = document.get("gpu_data") if isinstance(document, dict) else document
    found = []
    for adapter in adapters if isinstance(adapters, list) else ():
        asic, driver, vram = (_section(adapter, name) for name in ("asic", "driver", "vram"))
        # Some releases leave the address out.
        address, device_id = pci_address(_section(adapter, "bus").get("bdf")), number(asic.get("device_id"))
        if not address and not device_id:
            continue
        found.append(
            AdapterReading(
                address=address,
                vendor_id=_AMD,
                device_id=device_id,
                name=_sold_as(asic.get("market_name")),
                vram_bytes=_mebibytes(vram.get("size")),
                driver_version=words(driver.get("version", driver.get("driver_version"))),
            )
        )
    return tuple(found)


def _mebibytes(size: object) -> int | None:
    """Read ``{"value": 24560, "unit": "MB"}`` or ``"24560 MB"``, which are MiB both."""
    value = size.get("value") if isinstance(size, dict) else str(size).removesuffix(" MB")
    return size_bytes(value, _MEBIBYTE)


def parse_rocm_smi(text: str) -> tuple[AdapterReading, ...]:
    """Understand ``{"card0": {...}, "system": {...}}``; the names' upper and lower case differ by release."""
    document = _json(text)
    if not isinstance(document, dict):
        return ()
    version = words(_lowered(document.get("system")).get("driver version"))
    found = []
    for card, fields in document.items():
        said = _lowered(fields)
        address = pci_address(said.get("pci bus"))
        if not card.startswith("card") or not address:
            continue
        found.append(
            AdapterReading(
                address=address,
                vendor_id=_AMD,
                device_id=number(said.get("device id", said.get("gpu id"))),
                name=_sold_as(said.get("card series")),
                vram_bytes=size_bytes(said.get("vram total memory (b)"), 1),
                driver_version=version,
            )
        )
    return tuple(found)


def _sold_as(name: object) -> str:
    """Return a name; ``0x744c`` and ``Device 73bf`` are what is written where none is known."""
    said = words(name)
    return "" if re.fullmatch(r"(0x|Device )[0-9a-fA-F]+", said) else said


def parse_rocminfo(text: str) -> tuple[AdapterReading, ...]:
    """Understand the agents that are GPUs."""
    found = []
    for agent in _agents(text):
        if agent.get("Device Type") != "GPU":
            continue
        position = number(agent.get("BDFID"))
        chip = re.search(r"\((0x[0-9a-fA-F]+)\)", agent.get("Chip ID", ""))
        found.append(
            AdapterReading(
                address=f"{number(agent.get('Domain')):04x}:{position >> 8 & 0xFF:02x}:"
                f"{position >> 3 & 0x1F:02x}.{position & 7}",
                vendor_id=_AMD,
                device_id=number(chip[1]) if chip else 0,
                name=_sold_as(agent.get("Marketing Name")),
                vram_bytes=size_bytes(agent.get("Size", "").partition("(")[0], 1024),
            )
        )
    return tuple(found)


def _agents(text: str) -> Iterator[dict[str, str]]:
    """Read ``name: value`` lines by agent; the first of a name wins, so ``Size`` is the first pool's."""
    for block in re.split(r"^Agent \d+\s*$", text, flags=re.MULTILINE)[1:]:
        agent: dict[str, str] = {}
        for line in block.splitlines():
            name, colon, value = line.partition(":")
            if colon:
                agent.setdefault(name.strip(), value.strip())
        yield agent


def _json(text: str) -> Any:
    """Read JSON that warnings may precede and follow; None when there is none."""
    starts = re.finditer(r"^[\[{]", text, flags=re.MULTILINE)
    for start in islice(starts, _MOST_STARTS):
        with suppress(ValueError, RecursionError):
            return json.JSONDecoder().raw_decode(text, start.start())[0]
    return None


def _section(adapter: object, name: str) -> dict[str, Any]:
    section = adapter.get(name) if isinstance(adapter, dict) else None
    return section if isinstance(section, dict) else {}


def _lowered(fields: object) -> dict[str, Any]:
    return {str(name).lower(): value for name, value in fields.items()} if isinstance(fields, dict) else {}

"""What the tools of ROCm print, release by release."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdsetup.machine.adapters import rocm
from sdsetup.machine.adapters.external_tools import AdapterReading

RECORDED = Path(__file__).parent / "recorded"
MIB = 2**20
RX6800 = AdapterReading(
    address="0000:03:00.0",
    vendor_id=0x1002,
    device_id=0x73BF,
    name="AMD Radeon RX 6800 XT",
    vram_bytes=16368 * MIB,
)


def recorded(name: str) -> str:
    return (RECORDED / name).read_text("utf-8")


def test_the_tools_agree_on_an_adapter() -> None:
    assert rocm.parse_amd_smi(recorded("amd-smi.txt")) == (replace(RX6800, driver_version="6.8.5"),)
    old = replace(RX6800, driver_version="6.3.6", address="")
    assert rocm.parse_amd_smi(recorded("amd-smi-old.txt")) == (old,)
    assert rocm.parse_rocm_smi(recorded("rocm-smi.txt")) == (replace(RX6800, driver_version="6.7.0"),)
    assert rocm.parse_rocminfo(recorded("rocminfo.txt")) == (RX6800,)


def amd_smi(*adapters: Any) -> tuple[AdapterReading, ...]:
    return rocm.parse_amd_smi(json.dumps(list(adapters)))


def test_sections_that_are_absent_or_of_another_kind_say_nothing() -> None:
    bus = {"bus": {"bdf": "0000:03:00.0"}}
    (only,) = amd_smi({**bus, "asic": "N/A", "driver": [], "vram": None})
    assert only == AdapterReading(address="0000:03:00.0", vendor_id=0x1002)
    (only,) = amd_smi({"asic": {"device_id": "0x73bf", "market_name": "0x73bf"}})
    assert only == AdapterReading(vendor_id=0x1002, device_id=0x73BF)
    assert amd_smi({"asic": {}}, {"bus": {"bdf": "x"}}, 3, "x", None) == ()
    assert rocm.parse_amd_smi('{"gpu_data": 3}') == rocm.parse_amd_smi("3") == rocm.parse_amd_smi("") == ()


@pytest.mark.parametrize(
    ("size", "mebibytes"),
    [({"value": 24560, "unit": "MB"}, 24560), ("24560 MB", 24560), ("MB 5", None), ({}, None), (None, None)],
)
def test_memory_is_in_mebibytes(size: object, mebibytes: int | None) -> None:
    (only,) = amd_smi({"asic": {"device_id": "0x1"}, "vram": {"size": size}})
    assert only.vram_bytes == (None if mebibytes is None else mebibytes * MIB)


def test_json_is_found_between_warnings() -> None:
    text = f"WARNING: [not json\n[broken\n{recorded('amd-smi.txt')}\nWARNING: more {{}}"
    assert rocm.parse_amd_smi(text) == (replace(RX6800, driver_version="6.8.5"),)


def test_cards_of_rocm_smi_need_a_place() -> None:
    cards = {
        "card0": {"pci bus": "0000:03:00.0", "GPU ID": "0x73bf"},
        "card1": {"Device ID": "0x73bf"},
        "other": {"PCI Bus": "0000:04:00.0"},
        "card2": 5,
    }
    assert rocm.parse_rocm_smi(json.dumps(cards)) == (
        AdapterReading(address="0000:03:00.0", vendor_id=0x1002, device_id=0x73BF),
    )
    assert rocm.parse_rocm_smi("[1]") == rocm.parse_rocm_smi("") == ()


def test_agents_lie_where_their_number_says() -> None:
    """Bus, device and function in one number: 8, 5 and 3 bits."""
    agent = (
        "Agent 1\nDevice Type: GPU\nBDFID: {}\nDomain: 2\nChip ID: 29631(0x73bf)\n"
        "Size: 2(0x2) KB\nSize: 9(0x9) KB"
    )
    assert rocm.parse_rocminfo(agent.format(0x1_41_2B)) == (
        AdapterReading(address="0002:41:05.3", vendor_id=0x1002, device_id=0x73BF, vram_bytes=2048),
    )
    assert rocm.parse_rocminfo("Agent 1\nDevice Type: GPU\nno colon here") == (
        AdapterReading(address="0000:00:00.0", vendor_id=0x1002),
    )
    assert rocm.parse_rocminfo("Agent 1\nDevice Type: CPU") == rocm.parse_rocminfo("Device Type: GPU") == ()


@pytest.mark.skipif(sys.platform == "win32", reason="writes shell scripts")
def test_the_first_that_answers_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    asked = {
        "rocminfo": "",
        "rocm-smi": "--showproductname --showid --showbus --showmeminfo vram --showdriverversion --json",
        "amd-smi": "static --asic --bus --driver --vram --json",
    }
    for name, arguments in asked.items():
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\n[ "$*" = "{arguments}" ] && cat "{RECORDED / name}.txt"\n', "utf-8")
        program.chmod(0o755)
        version = {"rocminfo": "", "rocm-smi": "6.7.0", "amd-smi": "6.8.5"}[name]
        assert rocm.read() == (replace(RX6800, driver_version=version),)

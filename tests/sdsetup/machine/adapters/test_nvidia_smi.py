"""What nvidia-smi prints, line by line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sdsetup.machine.adapters import nvidia_smi
from sdsetup.machine.adapters.external_tools import AdapterReading

RECORDED = Path(__file__).parent / "recorded"
MIB = 2**20


def reading(address: str, device_id: int, name: str, vram_bytes: int) -> AdapterReading:
    return AdapterReading(
        address=address,
        vendor_id=0x10DE,
        device_id=device_id,
        name=name,
        vram_bytes=vram_bytes,
        driver_version="550.54.14",
        integrated=False,
    )


FOUND = (
    reading("0000:01:00.0", 0x2206, "NVIDIA GeForce RTX 3080", 10240 * MIB),
    reading("0000:41:00.0", 0x2684, "NVIDIA GeForce RTX 4090", 24564 * MIB),
)


def test_each_line_is_an_adapter() -> None:
    assert nvidia_smi.parse((RECORDED / "nvidia-smi.txt").read_text("utf-8")) == FOUND


@pytest.mark.parametrize("line", ["00000000:01:00.0, 0x220610DE, 550, 1", "x, 0x220610DE, 550, 1, name", ""])
def test_other_lines_are_left_out(line: str) -> None:
    good = "00000000:01:00.0, 0x220610DE, 550.54.14, 10240, NVIDIA GeForce RTX 3080"
    assert nvidia_smi.parse(f"{line}\n{good}\n") == FOUND[:1]
    assert nvidia_smi.parse((RECORDED / "nvidia-smi-failed.txt").read_text("utf-8")) == ()


def test_a_name_may_hold_commas() -> None:
    (only,) = nvidia_smi.parse("00000000:01:00.0, 0xABCD10DE, 550, 2, Tesla, of a kind\n")
    assert (only.name, only.device_id, only.vram_bytes) == ("Tesla, of a kind", 0xABCD, 2 * MIB)


@pytest.mark.skipif(sys.platform == "win32", reason="writes a shell script")
def test_the_program_is_asked_for_these_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (
        "--query-gpu=pci.bus_id,pci.device_id,driver_version,memory.total,name --format=csv,noheader,nounits"
    )
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] && cat "{RECORDED / "nvidia-smi.txt"}"\n', "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert nvidia_smi.read() == FOUND

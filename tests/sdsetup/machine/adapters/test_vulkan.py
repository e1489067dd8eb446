"""What ``vulkaninfo --summary`` prints."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sdsetup.machine.adapters import vulkan
from sdsetup.machine.adapters.external_tools import AdapterReading

RECORDED = Path(__file__).parent / "recorded" / "vulkaninfo.txt"
MESA = "Mesa 24.0.9-0ubuntu0.1"
FOUND = (
    AdapterReading(
        vendor_id=0x1002,
        device_id=0x73BF,
        name="AMD Radeon RX 6800 XT (RADV NAVI21)",
        driver_version=MESA,
        integrated=False,
    ),
    AdapterReading(
        vendor_id=0x8086,
        device_id=0xA788,
        name="Intel(R) Graphics (RPL-S)",
        driver_version=MESA,
        integrated=True,
    ),
    AdapterReading(
        vendor_id=0x10005,
        name="llvmpipe (LLVM 17.0.6, 256 bits)",
        driver_version=f"{MESA} (LLVM 17.0.6)",
        software=True,
    ),
)


def test_an_adapter_of_two_drivers_is_one() -> None:
    assert vulkan.parse(RECORDED.read_text("utf-8")) == FOUND


def device(**fields: str) -> str:
    known = {"vendorID": "0x1002", "deviceID": "0x1", "deviceName": "x"} | fields
    return "GPU0:\n" + "".join(f"\t{name}    = {value}\n" for name, value in known.items())


def test_two_alike_with_one_driver_are_two() -> None:
    assert len(vulkan.parse(device(driverName="a") * 2)) == 2
    assert len(vulkan.parse(device(driverName="a") + device(driverName="b") + device(deviceID="0x2"))) == 2


@pytest.mark.parametrize("lacking", [{"vendorID": "0x0"}, {"deviceName": "N/A"}])
def test_what_has_no_vendor_or_name_is_left_out(lacking: dict[str, str]) -> None:
    assert vulkan.parse(device(**lacking)) == ()
    assert vulkan.parse("") == ()


def test_a_driver_s_version_serves_where_it_tells_no_more() -> None:
    (only,) = vulkan.parse(device(driverVersion="2.0", deviceType="PHYSICAL_DEVICE_TYPE_CPU"))
    assert (only.driver_version, only.software, only.integrated) == ("2.0", True, None)
    (only,) = vulkan.parse(device(driverInfo="N/A", driverVersion="2.0"))
    assert (only.driver_version, only.software) == ("2.0", False)


@pytest.mark.skipif(sys.platform == "win32", reason="writes a shell script")
def test_the_program_is_asked_for_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vulkaninfo"
    program.write_text(f'#!/bin/sh\n[ "$*" = "--summary" ] && cat "{RECORDED}"\n', "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert vulkan.read() == FOUND

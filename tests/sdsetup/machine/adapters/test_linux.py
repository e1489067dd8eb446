"""Adapters read from a file system that a test lays out like sysfs."""

import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("sysfs has names that Windows does not allow", allow_module_level=True)

from sdsetup.machine import adapters
from sdsetup.machine.adapters import linux

GIB = 1024**3


@pytest.fixture(autouse=True)
def _no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's own tools tell must not mix with what a test lays out."""
    monkeypatch.setenv("PATH", str(tmp_path))


def _device(root: Path, address: str, **files: str) -> Path:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    for name, text in {"class": "0x030000", **files}.items():
        (folder / name).write_text(text + "\n")
    return folder


def _driver(device: Path, root: Path, name: str, version: str = "") -> None:
    module = root / "sys/module" / name
    module.mkdir(parents=True, exist_ok=True)
    if version:
        (module / "version").write_text(version)
    (device / "driver").symlink_to(root / "sys/bus/pci/drivers" / name)


def test_a_card_and_the_processor_s_own_graphics_are_told_apart(tmp_path: Path) -> None:
    card = _device(
        tmp_path, "0000:03:00.0", vendor="0x1002", device="0x73bf",
        mem_info_vram_total=str(16 * GIB), mem_info_vram_vendor="samsung",
    )  # fmt: skip
    own = _device(
        tmp_path, "0000:0b:00.0", vendor="0x1002", device="0x164e", mem_info_vram_total=str(GIB // 2),
        mem_info_gtt_total=str(15 * GIB), mem_info_vram_vendor="unknown",
    )  # fmt: skip
    _device(tmp_path, "0000:01:00.0", vendor="0x8086", device="0x1533", **{"class": "0x020000"})
    _driver(card, tmp_path, "amdgpu", "6.10.5")
    _driver(own, tmp_path, "amdgpu", "6.10.5")
    first, second = linux.read(tmp_path)
    assert (first.vendor, first.device_id, first.vram_bytes) == ("AMD", 0x73BF, 16 * GIB)
    assert (first.integrated, second.integrated) == (False, True)
    assert (first.driver, first.driver_version) == ("amdgpu", "6.10.5")
    assert second.shared_bytes == 15 * GIB
    chosen = adapters.choose((first, second))
    assert chosen is not None
    assert chosen[0] == first


def test_names_come_from_the_pci_list_and_may_hold_anything(tmp_path: Path) -> None:
    _device(tmp_path, "0000:03:00.0", vendor="0x1002", device="0x73bf")
    listed = tmp_path / "usr/share/misc/pci.ids"
    listed.parent.mkdir(parents=True)
    listed.write_text(
        "# list\n10de  NVIDIA\n\t73bf  not this one\n"
        "1002  AMD\n\t73be  nor this\n\t73bf  Navi 21 [RX \U0001f525 6800]\n",
        encoding="utf-8",
    )
    assert linux.read(tmp_path)[0].name == "Navi 21 [RX \U0001f525 6800]"


def test_an_unlisted_adapter_is_named_by_its_numbers(tmp_path: Path) -> None:
    _device(tmp_path, "0000:03:00.0", vendor="0x1002", device="0x73bf")
    (only,) = linux.read(tmp_path)
    assert only.name == "1002:73bf"
    assert only.vram_bytes is None


def test_a_virtual_machine_s_screen_is_software(tmp_path: Path) -> None:
    _device(tmp_path, "0000:00:01.0", vendor="0x1234", device="0x1111")
    assert linux.read(tmp_path)[0].software
    assert adapters.choose(linux.read(tmp_path)) is None


@pytest.mark.parametrize("vendor", [0x1234, 0x15AD, 0x80EE, 0x1AF4, 0x1B36, 0x1414])
def test_screens_of_hypervisors_are_software(vendor: int, tmp_path: Path) -> None:
    _device(tmp_path, "0000:00:01.0", vendor=f"{vendor:#06x}", device="0x1111")
    (only,) = linux.read(tmp_path)
    assert only.software
    assert (only.driver, only.driver_version, only.integrated) == ("", "", False)


@pytest.mark.parametrize(
    ("vendor", "address", "integrated"),
    [
        ("0x10de", "0000:00:02.0", False),
        ("0x8086", "0000:00:02.0", True),
        ("0x8086", "0000:03:00.0", False),
        ("0x1002", "0000:03:00.0", None),
    ],
)
def test_what_is_part_of_the_processor_is_known_by_its_place(
    vendor: str, address: str, integrated: bool | None, tmp_path: Path
) -> None:
    _device(tmp_path, address, vendor=vendor, device="0x1111")
    assert linux.read(tmp_path)[0].integrated is integrated


def test_junk_in_sysfs_is_survived(tmp_path: Path) -> None:
    _device(tmp_path, "0000:03:00.0", vendor="junk", device="", mem_info_vram_total="many")
    (only,) = linux.read(tmp_path)
    assert (only.vendor_id, only.vram_bytes) == (0, None)


def test_a_machine_without_pci_has_no_adapter(tmp_path: Path) -> None:
    assert linux.read(tmp_path) == ()

"""Adapters on Linux: sysfs for what is there, the PCI list for names, NVIDIA's tool for its memory."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sdsetup.adapters import AMD, NVIDIA, Adapter

_DISPLAY_CLASS = 0x03
# Virtual adapters of hypervisors: QEMU, Bochs, VMware, VirtualBox, Red Hat's virtio and QXL, Hyper-V.
_VIRTUAL = {0x1234, 0x15AD, 0x80EE, 0x1AF4, 0x1B36, 0x1414}


def read(root: Path = Path("/")) -> tuple[Adapter, ...]:
    """Read every display controller on the PCI bus.

    Args:
        root: Where the file system begins; tests hand in one of their own.
    """
    return tuple(_describe(device, index, root) for index, device in enumerate(_display_devices(root)))


def _display_devices(root: Path) -> Iterator[Path]:
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if _number(device / "class") >> 16 == _DISPLAY_CLASS:
            yield device


def _describe(device: Path, index: int, root: Path) -> Adapter:
    vendor_id, device_id = _number(device / "vendor"), _number(device / "device")
    driver = _driver(device)
    vram: int | None = _number(device / "mem_info_vram_total") or None
    version = _text(root / "sys/module" / driver / "version") if driver else ""
    name = _pci_name(root, vendor_id, device_id) or f"{vendor_id:04x}:{device_id:04x}"
    if vendor_id == NVIDIA and root == Path("/"):
        name, vram, version = _ask_nvidia(device.name) or (name, vram, version)
    return Adapter(
        index=index,
        name=name,
        vendor_id=vendor_id,
        device_id=device_id,
        vram_bytes=vram,
        shared_bytes=_number(device / "mem_info_gtt_total") or None,
        driver=driver,
        driver_version=version,
        software=vendor_id in _VIRTUAL,
        integrated=_is_integrated(device, vendor_id),
    )


def _is_integrated(device: Path, vendor_id: int) -> bool | None:
    if vendor_id == NVIDIA:
        return False
    if vendor_id == AMD:
        # amdgpu tells the type of a card's own memory; an APU's is that of the machine, with no vendor.
        memory = device / "mem_info_vram_vendor"
        return _text(memory) in {"", "unknown"} if memory.exists() else None
    # Intel's processor graphics sit at a fixed place of the first bus.
    return device.name.endswith("00:02.0")


def _driver(device: Path) -> str:
    try:
        return (device / "driver").readlink().name
    except OSError:
        return ""


def _ask_nvidia(address: str) -> tuple[str, int | None, str] | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    fields = "--query-gpu=name,memory.total,driver_version"
    try:
        answer = subprocess.run(
            [tool, fields, "--format=csv,noheader,nounits", f"--id={address}"],
            capture_output=True, text=True, errors="replace", timeout=2, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        name, mebibytes, version = (field.strip() for field in answer.stdout.strip().split(","))
        return name, int(mebibytes) * 1024 * 1024, version
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _pci_name(root: Path, vendor_id: int, device_id: int) -> str:
    for listed in ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"):
        try:
            lines = (root / listed).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        inside = False
        for line in lines:
            if line[:1] not in {"", "\t", "#"}:
                inside = line.startswith(f"{vendor_id:04x} ")
            elif inside and line.startswith(f"\t{device_id:04x} "):
                return line.split("  ", 1)[-1].strip()
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    try:
        return int(_text(path), 0)
    except ValueError:
        return 0

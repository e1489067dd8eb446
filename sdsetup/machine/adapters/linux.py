"""Adapters on Linux: sysfs for what is there, and what the vendors' tools and Vulkan know besides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from sdsetup.machine.adapters import nvidia_smi, rocm, vulkan
from sdsetup.machine.adapters.adapter import AMD, NVIDIA, Adapter
from sdsetup.machine.adapters.external_tools import AdapterReading

_DISPLAY_CLASS = 0x03
# Virtual adapters of hypervisors: QEMU, Bochs, VMware, VirtualBox, Red Hat's virtio and QXL, Hyper-V.
_VIRTUAL = {0x1234, 0x15AD, 0x80EE, 0x1AF4, 0x1B36, 0x1414}


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """An adapter under way; ``named`` tells that its name is better than the PCI list's."""

    adapter: Adapter
    address: str = ""
    named: bool = False


def read(root: Path = Path("/")) -> tuple[Adapter, ...]:
    """Read every display controller on the PCI bus, and what tools on PATH tell of it or of others.

    Args:
        root: Where the file system begins; tests hand in one of their own.
    """
    sources = (nvidia_smi.read, rocm.read, vulkan.read)
    with ThreadPoolExecutor(len(sources)) as pool:
        answers = [pool.submit(source) for source in sources]
        seen = [_describe(device, root) for device in _display_devices(root)]
    for answer in answers:
        seen = _merge(seen, answer.result())
    return tuple(replace(each.adapter, index=index) for index, each in enumerate(seen))


def _merge(seen: Sequence[_Seen], told: Iterable[AdapterReading]) -> list[_Seen]:
    """Add what one program tells, to the adapter that it speaks of or as one more."""
    merged = list(seen)
    spoken_of: set[int] = set()
    for each in told:
        place = _place(merged, spoken_of, each)
        if place is None:
            place = len(merged)
            merged.append(
                _Seen(
                    adapter=Adapter(
                        index=place, name="", vendor_id=each.vendor_id, device_id=each.device_id,
                        software=each.software,
                    ),
                    address=each.address,
                )
            )  # fmt: skip
        spoken_of.add(place)
        merged[place] = _completed(merged[place], each)
    return merged


def _place(seen: Sequence[_Seen], spoken_of: set[int], told: AdapterReading) -> int | None:
    """Find the adapter by its address; without one by its ids, the first that was not spoken of yet."""
    for place, each in enumerate(seen):
        if told.address and told.address == each.address:
            return place
    for place, each in enumerate(seen):
        known = (each.adapter.vendor_id, each.adapter.device_id)
        if (
            known == (told.vendor_id, told.device_id)
            and place not in spoken_of
            and not (told.address and each.address)
        ):
            return place
    return None


def _completed(seen: _Seen, told: AdapterReading) -> _Seen:
    """Add what was not known; vendors' tools, which come first, and Vulkan name a card as it is sold."""
    known = seen.adapter
    return _Seen(
        adapter=replace(
            known,
            name=told.name if told.name and not seen.named else known.name,
            vram_bytes=told.vram_bytes if known.vram_bytes is None else known.vram_bytes,
            driver_version=known.driver_version or told.driver_version,
            integrated=told.integrated if known.integrated is None else known.integrated,
        ),
        address=seen.address or told.address,
        named=seen.named or bool(told.name),
    )


def _display_devices(root: Path) -> Iterator[Path]:
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if _number(device / "class") >> 16 == _DISPLAY_CLASS:
            yield device


def _describe(device: Path, root: Path) -> _Seen:
    vendor_id, device_id = _number(device / "vendor"), _number(device / "device")
    driver = _driver(device)
    adapter = Adapter(
        index=0,
        name=_pci_name(root, vendor_id, device_id) or f"{vendor_id:04x}:{device_id:04x}",
        vendor_id=vendor_id,
        device_id=device_id,
        vram_bytes=_number(device / "mem_info_vram_total") or None,
        shared_bytes=_number(device / "mem_info_gtt_total") or None,
        driver=driver,
        driver_version=_text(root / "sys/module" / driver / "version") if driver else "",
        software=vendor_id in _VIRTUAL,
        integrated=_is_integrated(device, vendor_id),
    )
    return _Seen(adapter=adapter, address=device.name)


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

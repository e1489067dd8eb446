"""What only Windows can be asked: kernel32, advapi32's registry, the user interface's session."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import winreg
from ctypes import byref, c_uint64, c_ulong, create_unicode_buffer
from pathlib import Path

from sdsetup.machine.facts import Machine

if sys.platform != "win32":
    raise ImportError("this asks Windows", name=__name__)

_SM_REMOTESESSION = 0x1000
# Source: winnt.h, PF_*_INSTRUCTIONS_AVAILABLE.
_FEATURES = {38: "sse4_2", 39: "avx", 40: "avx2", 41: "avx512f"}


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX."""

    _fields_ = (
        ("length", c_ulong),
        ("load", c_ulong),
        ("ram", c_uint64),
        ("ram_available", c_uint64),
        ("commit_limit", c_uint64),
        ("commit_available", c_uint64),
        ("address_space", c_uint64),
        ("address_space_available", c_uint64),
        ("extended", c_uint64),
    )


def machine() -> Machine:
    """Read the machine."""
    kernel32 = ctypes.WinDLL("kernel32")
    memory = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    known = bool(kernel32.GlobalMemoryStatusEx(byref(memory)))
    version = sys.getwindowsversion()
    return Machine(
        platform="win32",
        release=f"Windows {platform.release()} {_display_version()}".strip(),
        build=version.platform_version[2] or version.build,
        architecture=platform.machine(),
        cpu=_value(r"HARDWARE\DESCRIPTION\System\CentralProcessor\0", "ProcessorNameString").strip(),
        cpu_features=frozenset(
            name for number, name in _FEATURES.items() if kernel32.IsProcessorFeaturePresent(number)
        ),
        cores=os.cpu_count() or 1,
        ram_bytes=memory.ram if known else None,
        ram_available_bytes=memory.ram_available if known else None,
        commit_limit_bytes=memory.commit_limit if known else None,
        commit_used_bytes=memory.commit_limit - memory.commit_available if known else None,
        remote_session="remote desktop"
        if ctypes.WinDLL("user32").GetSystemMetrics(_SM_REMOTESESSION)
        else "",
        long_paths=_value(r"SYSTEM\CurrentControlSet\Control\FileSystem", "LongPathsEnabled") == "1",
        vc_runtime=_vc_runtime(),
        real_time_scanner=_scanner(),
    )


def _display_version() -> str:
    return _value(r"SOFTWARE\Microsoft\Windows NT\CurrentVersion", "DisplayVersion")


def _scanner() -> str:
    """Name the scanner that looks at every new file, when it is Windows' own and on."""
    defender = r"SOFTWARE\Microsoft\Windows Defender"
    if not _value(defender, "ProductAppDataPath") and not _value(defender, "InstallLocation"):
        return ""
    off = _value(rf"{defender}\Real-Time Protection", "DisableRealtimeMonitoring") == "1"
    return "" if off else "Microsoft Defender"


def _vc_runtime() -> tuple[int, int] | None:
    """Read the version of the C++ runtime that Windows' loader would take."""
    return _file_version(Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "msvcp140.dll")


def _file_version(path: Path) -> tuple[int, int] | None:
    version = ctypes.WinDLL("version")
    size = version.GetFileVersionInfoSizeW(str(path), None)
    if not size:
        return None
    data = ctypes.create_string_buffer(size)
    found, length = ctypes.c_void_p(), ctypes.c_uint()
    if not version.GetFileVersionInfoW(str(path), 0, size, data):
        return None
    if not version.VerQueryValueW(data, "\\", byref(found), byref(length)) or not found.value:
        return None
    # VS_FIXEDFILEINFO: the third number is the upper half of the file's version.
    upper = ctypes.cast(found, ctypes.POINTER(c_ulong))[2]
    return upper >> 16, upper & 0xFFFF


def _value(key: str, name: str) -> str:
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
            return str(winreg.QueryValueEx(opened, name)[0])
    except OSError:
        return ""


def file_system(folder: Path) -> str:
    """Name the file system that holds a folder, empty when Windows does not tell."""
    kernel32 = ctypes.WinDLL("kernel32")
    volume = create_unicode_buffer(512)
    if not kernel32.GetVolumePathNameW(str(folder), volume, len(volume)):
        return ""
    name = create_unicode_buffer(64)
    known = kernel32.GetVolumeInformationW(volume, None, 0, None, None, None, name, len(name))
    return name.value if known else ""

"""Adapters on Windows, by DXGI through ctypes; their driver's version and date besides.

WMI's ``AdapterRAM`` is a 32-bit number and stops at 4 GB, so it is never asked.

Source: dxgi.h and dxcore_interface.h of the Windows SDK; slot numbers count the methods of each interface
in its header, from IUnknown's three on.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from ctypes import POINTER, byref, c_int64, c_long, c_size_t, c_uint, c_ulong, c_void_p, c_wchar
from typing import Any

from conversions.providers.adapter_ranking import is_software
from sdsetup.machine.adapters.adapter import Adapter

if sys.platform != "win32":
    raise ImportError("DXGI is part of Windows", name=__name__)

_DXGI_ERROR_NOT_FOUND = 0x887A0002
_SOFTWARE_FLAG = 2
_HIGH_PERFORMANCE = 2
_DISPLAY_CLASS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_DXCORE_IS_INTEGRATED = 12


class _Guid(ctypes.Structure):
    _fields_ = (
        ("first", c_ulong),
        ("second", ctypes.c_ushort),
        ("third", ctypes.c_ushort),
        ("rest", ctypes.c_ubyte * 8),
    )

    @classmethod
    def parse(cls, text: str) -> _Guid:
        first, second, third, fourth, fifth = text.split("-")
        return cls(
            int(first, 16),
            int(second, 16),
            int(third, 16),
            (ctypes.c_ubyte * 8)(*bytes.fromhex(fourth + fifth)),
        )


class _Luid(ctypes.Structure):
    _fields_ = (("low", c_ulong), ("high", c_long))


class _Description(ctypes.Structure):
    """DXGI_ADAPTER_DESC1."""

    _fields_ = (
        ("name", c_wchar * 128),
        ("vendor_id", c_uint),
        ("device_id", c_uint),
        ("subsystem", c_uint),
        ("revision", c_uint),
        ("dedicated_video", c_size_t),
        ("dedicated_system", c_size_t),
        ("shared_system", c_size_t),
        ("luid", _Luid),
        ("flags", c_uint),
    )


_FACTORY1 = _Guid.parse("770aae78-f26f-4dba-a829-253c83d1b387")
_FACTORY6 = _Guid.parse("c1b6694f-ff09-44a9-b03c-77900a0a1d17")
_ADAPTER1 = _Guid.parse("29038f61-3839-4626-91fd-086879011a05")
_DEVICE = _Guid.parse("54ec77fa-1377-44e6-8c32-88fd5f44c84c")
_DXCORE_FACTORY = _Guid.parse("78ee5945-c36e-4b13-a669-005dd11c0f06")
_DXCORE_ADAPTER = _Guid.parse("f0db4c7f-fe5a-42a2-bd62-f2a6cf6fc83e")


def _call(pointer: c_void_p, slot: int, types: tuple[Any, ...], *arguments: Any) -> int:
    """Call a COM method by its slot and give its HRESULT as an unsigned number."""
    table = ctypes.cast(pointer, POINTER(POINTER(c_void_p))).contents
    method = ctypes.WINFUNCTYPE(c_long, c_void_p, *types)(table[slot] or 0)
    return int(method(pointer, *arguments)) & 0xFFFFFFFF


def _release(pointer: c_void_p) -> None:
    _call(pointer, 2, ())


def read() -> tuple[Adapter, ...]:
    """Read every adapter, in DXGI's order.

    Raises:
        OSError: DXGI is not there or refuses.
    """
    factory = c_void_p()
    result = ctypes.WinDLL("dxgi").CreateDXGIFactory1(byref(_FACTORY1), byref(factory)) & 0xFFFFFFFF
    if result:
        raise OSError(f"CreateDXGIFactory1 answered {result:#010x}")
    try:
        return tuple(_adapters(factory))
    finally:
        _release(factory)


def _adapters(factory: c_void_p) -> Iterator[Adapter]:
    drivers = _registered_drivers()
    ranks = _ranks(factory)
    index = 0
    while True:
        pointer = c_void_p()
        result = _call(factory, 12, (c_uint, POINTER(c_void_p)), index, byref(pointer))  # EnumAdapters1
        if result == _DXGI_ERROR_NOT_FOUND:
            return
        if result:
            raise OSError(f"EnumAdapters1({index}) answered {result:#010x}")
        try:
            yield _describe(pointer, index, drivers, ranks)
        finally:
            _release(pointer)
        index += 1


def _ranks(factory: c_void_p) -> dict[tuple[int, int], int]:
    """Read the order by speed by LUID; empty before Windows 10 1803, which has no IDXGIFactory6."""
    newer = c_void_p()
    if _call(factory, 0, (POINTER(_Guid), POINTER(c_void_p)), byref(_FACTORY6), byref(newer)):
        return {}  # QueryInterface
    ranks: dict[tuple[int, int], int] = {}
    types = (c_uint, c_uint, POINTER(_Guid), POINTER(c_void_p))
    try:
        while True:
            pointer = c_void_p()
            if _call(newer, 29, types, len(ranks), _HIGH_PERFORMANCE, byref(_ADAPTER1), byref(pointer)):
                return ranks  # EnumAdapterByGpuPreference has no more
            try:
                luid = _description(pointer).luid
            finally:
                _release(pointer)
            if (luid.high, luid.low) in ranks:
                return {}  # an order that names one adapter twice is none
            ranks[luid.high, luid.low] = len(ranks)
    finally:
        _release(newer)


def _description(pointer: c_void_p) -> _Description:
    seen = _Description()
    result = _call(pointer, 10, (POINTER(_Description),), byref(seen))  # GetDesc1
    if result:
        raise OSError(f"GetDesc1 answered {result:#010x}")
    return seen


def _describe(
    pointer: c_void_p,
    index: int,
    drivers: dict[tuple[int, int], tuple[str, str]],
    ranks: dict[tuple[int, int], int],
) -> Adapter:
    seen = _description(pointer)
    ids = (seen.vendor_id, seen.device_id)
    software = bool(seen.flags & _SOFTWARE_FLAG) or is_software(seen.name, *ids)
    version, date = drivers.get(ids, ("", ""))
    return Adapter(
        index=index,
        name=seen.name,
        vendor_id=seen.vendor_id,
        device_id=seen.device_id,
        vram_bytes=seen.dedicated_video,
        shared_bytes=seen.shared_system,
        driver_version=_user_mode_version(pointer) or version,
        driver_date=date,
        software=software,
        integrated=None if software else _is_integrated(seen.luid),
        rank=ranks.get((seen.luid.high, seen.luid.low)),
    )


def _user_mode_version(pointer: c_void_p) -> str:
    version = c_int64()
    if _call(
        pointer, 9, (POINTER(_Guid), POINTER(c_int64)), byref(_DEVICE), byref(version)
    ):  # CheckInterfaceSupport
        return ""
    return ".".join(str(version.value >> shift & 0xFFFF) for shift in (48, 32, 16, 0))


def _is_integrated(luid: _Luid) -> bool | None:
    """Ask DXCore, which Windows has from 10 2004 on; None when it does not know."""
    factory, adapter = c_void_p(), c_void_p()
    try:
        create = ctypes.WinDLL("dxcore").DXCoreCreateAdapterFactory
    except (OSError, AttributeError):
        return None
    if create(byref(_DXCORE_FACTORY), byref(factory)):
        return None
    try:
        if _call(
            factory, 4, (POINTER(_Luid), POINTER(_Guid), POINTER(c_void_p)),
            byref(luid), byref(_DXCORE_ADAPTER), byref(adapter),
        ):  # fmt: skip  # GetAdapterByLuid
            return None
        try:
            answer = ctypes.c_bool()
            types = (c_uint, c_size_t, c_void_p)
            if _call(
                adapter, 6, types, _DXCORE_IS_INTEGRATED, ctypes.sizeof(answer), byref(answer)
            ):  # GetProperty
                return None
            return answer.value
        finally:
            _release(adapter)
    finally:
        _release(factory)


def _registered_drivers() -> dict[tuple[int, int], tuple[str, str]]:
    """Read version and date of each display driver by (vendor id, device id)."""
    import re
    import winreg

    found: dict[tuple[int, int], tuple[str, str]] = {}
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _DISPLAY_CLASS) as displays:
            for position in range(winreg.QueryInfoKey(displays)[0]):
                try:
                    with winreg.OpenKey(displays, winreg.EnumKey(displays, position)) as driver:
                        device = str(winreg.QueryValueEx(driver, "MatchingDeviceId")[0])
                        ids = re.search(r"ven_([0-9a-f]{4})&dev_([0-9a-f]{4})", device, re.IGNORECASE)
                        if ids:
                            version = str(winreg.QueryValueEx(driver, "DriverVersion")[0])
                            date = str(winreg.QueryValueEx(driver, "DriverDate")[0])
                            found[int(ids[1], 16), int(ids[2], 16)] = (version, date)
                except OSError:  # a key without these values is no display driver
                    continue
    except OSError:
        return {}
    return found

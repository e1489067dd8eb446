"""Fills two empty slots in the method table of Wine's Direct3D 12 device, so that DirectML accepts it.

Wine's ``ID3D12Device5`` answers "not implemented" to ``EnumerateMetaCommands`` (a driver's own fast kernels)
and to ``EnqueueMakeResident`` (paging). For a driver without such kernels, on a machine whose video memory is
main memory, the right answers are "none" and "it is there already": a count of 0, and a signalled fence.
"""

import ctypes
import uuid
from ctypes import wintypes

# Source: d3d12.h of the Windows SDK: interface identifiers and the order of methods.
ID3D12_DEVICE = uuid.UUID("189819f1-1db6-4b57-be54-1821339b85f7")
ID3D12_DEVICE5 = uuid.UUID("8b4f173b-2fea-4b80-8f58-4307191ab95d")
ENQUEUE_MAKE_RESIDENT = 50
ENUMERATE_META_COMMANDS = 59
FEATURE_LEVEL_11_0 = 0xB000
PAGE_READWRITE = 0x04
PAGE_EXECUTE_READWRITE = 0x40
MEM_COMMIT_AND_RESERVE = 0x3000

# x86-64, Microsoft's calling convention.
CODE = {
    # *count = 0; return S_OK:             mov dword ptr [rdx], 0; xor eax, eax; ret
    ENUMERATE_META_COMMANDS: bytes.fromhex("c70200000000 31c0 c3"),
    # return fence->Signal(value):         mov rcx, [rsp+40]; mov rdx, [rsp+48]; mov rax, [rcx]; jmp [rax+80]
    ENQUEUE_MAKE_RESIDENT: bytes.fromhex("488b4c2428 488b542430 488b01 ff6050"),
}


def fill_in() -> bool:
    """Patch the method table of this process; devices made later share it.

    Returns:
        False when there is no Direct3D 12 device (no display, no Vulkan driver); DirectML fails by itself.
    """
    device = _make_device()
    if not device:
        return False
    # The reference to this interface is never given back: the table must stay loaded.
    device5 = ctypes.c_void_p()
    query_interface = _method(device, 0, ctypes.c_void_p, ctypes.c_void_p)
    if query_interface(device, _guid(ID3D12_DEVICE5), ctypes.byref(device5)):
        return False
    kernel32 = ctypes.WinDLL("kernel32")
    kernel32.VirtualAlloc.restype = ctypes.c_void_p
    kernel32.VirtualAlloc.argtypes = (ctypes.c_void_p, ctypes.c_size_t, wintypes.DWORD, wintypes.DWORD)
    kernel32.VirtualProtect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, wintypes.DWORD, wintypes.LPDWORD)
    table = ctypes.cast(device5, ctypes.POINTER(ctypes.c_void_p))[0]
    page = kernel32.VirtualAlloc(None, 4096, MEM_COMMIT_AND_RESERVE, PAGE_EXECUTE_READWRITE)
    before = wintypes.DWORD()
    for number, (slot, code) in enumerate(CODE.items()):
        address = page + 64 * number
        ctypes.memmove(address, code, len(code))
        entry = table + slot * ctypes.sizeof(ctypes.c_void_p)
        kernel32.VirtualProtect(entry, 8, PAGE_READWRITE, ctypes.byref(before))
        ctypes.c_void_p.from_address(entry).value = address
        kernel32.VirtualProtect(entry, 8, before, ctypes.byref(before))
    return True


def _make_device() -> ctypes.c_void_p:
    device = ctypes.c_void_p()
    create = ctypes.WinDLL("d3d12").D3D12CreateDevice
    create.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    create.restype = ctypes.c_long
    create(None, FEATURE_LEVEL_11_0, _guid(ID3D12_DEVICE), ctypes.byref(device))
    return device


def _guid(identifier: uuid.UUID) -> ctypes.Array:
    return ctypes.create_string_buffer(identifier.bytes_le, 16)


def _method(interface, slot, *arguments):
    table = ctypes.cast(interface, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    return ctypes.WINFUNCTYPE(ctypes.c_long, ctypes.c_void_p, *arguments)(table[slot])

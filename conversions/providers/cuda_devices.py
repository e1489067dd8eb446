"""List NVIDIA GPUs in CUDA's order, through the driver library."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

# CU_DEVICE_ATTRIBUTE_INTEGRATED. Source: NVIDIA, CUDA Driver API, enum CUdevice_attribute.
_INTEGRATED = 18
_NAME_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class CudaDevice:
    """A GPU as the driver describes it.

    Attributes:
        name: For example "NVIDIA GeForce RTX 4070".
        memory_bytes: Total memory.
        integrated: Whether it shares main memory.
    """

    name: str
    memory_bytes: int
    integrated: bool


def cuda_devices() -> tuple[CudaDevice, ...]:
    """Return the GPUs that CUDA sees; the index in the tuple is ONNX Runtime's ``device_id``.

    Empty when there is no driver, or it does not work.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return ()
    return read_devices(driver)


def read_devices(driver: Any) -> tuple[CudaDevice, ...]:
    """List the GPUs through a loaded driver library.

    Args:
        driver: The library loaded by ``ctypes``; its functions return 0 for success.

    Source: NVIDIA, CUDA Driver API, Device Management.
    """
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    found = []
    for place in range(count.value):
        handle, integrated = ctypes.c_int(), ctypes.c_int()
        name, memory = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
        failed = (
            driver.cuDeviceGet(ctypes.byref(handle), place)
            or driver.cuDeviceGetName(name, _NAME_BYTES, handle)
            or driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
            or driver.cuDeviceGetAttribute(ctypes.byref(integrated), _INTEGRATED, handle)
        )
        if failed:
            return ()
        found.append(
            CudaDevice(
                name=name.value.decode("utf-8", "replace"),
                memory_bytes=memory.value,
                integrated=bool(integrated.value),
            )
        )
    return tuple(found)

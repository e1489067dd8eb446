"""Run alone, in a process of its own: import ONNX Runtime, run a tiny graph on a provider, print JSON.

``trial.py`` lists what there is and tries the CPU; ``trial.py PROVIDER [DEVICE]`` tries one provider.
A driver that crashes takes this process with it and nothing else. Needs ONNX Runtime and numpy only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

# float16 x [3, 5] -> MatMul with a [5, 7] weight -> Relu -> y [3, 7]; see tests for how it is made.
GRAPH = Path(__file__).with_name("trial.onnx")
_TOLERANCE = 0.02


def main(arguments: list[str]) -> int:
    """Print one JSON document about this installation or one provider of it."""
    document: dict[str, Any] = {}
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as the package does, which this does not import
    try:
        import onnxruntime
    except Exception as error:  # noqa: BLE001 - whatever stops the import is what is asked for
        document["import_error"] = f"{type(error).__name__}: {error}"
    else:
        if arguments:
            document = _try(onnxruntime, arguments[0], int(arguments[1]) if len(arguments) > 1 else None)
        else:
            document = {
                "version": getattr(onnxruntime, "__version__", ""),
                "providers": list(getattr(onnxruntime, "get_available_providers", list)()),
                "cpu": _try(onnxruntime, "CPUExecutionProvider", None),
            }
        document["directml"] = _directml(onnxruntime)
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
    # A driver's threads must not get a chance to crash or hang after the answer was given.
    os._exit(0)


def _try(onnxruntime: Any, provider: str, device: int | None) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        import numpy

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if provider != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        settings = {} if device is None else {"device_id": str(device)}
        session = onnxruntime.InferenceSession(
            GRAPH.read_bytes(), options, providers=[provider], provider_options=[settings]
        )
        if session.get_providers()[0] != provider:
            return {"error": f"ONNX Runtime fell back to {session.get_providers()[0]} without a word"}
        given = numpy.linspace(-1, 1, 15, dtype=numpy.float16).reshape(3, 5)
        weight = numpy.linspace(-2, 2, 35, dtype=numpy.float16).reshape(5, 7)
        expected = numpy.maximum(given.astype(numpy.float32) @ weight.astype(numpy.float32), 0)
        (seen,) = session.run(None, {"x": given})
        largest = float(numpy.abs(seen.astype(numpy.float32) - expected).max())
    except Exception as error:  # noqa: BLE001 - a provider may raise anything
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
    wrong = "" if largest <= _TOLERANCE else f"its numbers are wrong by up to {largest:.3g}"
    return {"error": wrong, "largest_error": largest, "seconds": time.perf_counter() - began}


def _directml(onnxruntime: Any) -> dict[str, str]:
    """Say which DirectML.dll this process has loaded, or which one lies beside ONNX Runtime."""
    if sys.platform != "win32":
        return {}
    import ctypes

    kernel32 = ctypes.WinDLL("kernel32")
    kernel32.GetModuleHandleW.restype = ctypes.c_void_p
    handle = kernel32.GetModuleHandleW("DirectML.dll")
    path = Path(onnxruntime.__file__).parent / "capi" / "DirectML.dll"
    if handle:
        name = ctypes.create_unicode_buffer(32768)
        kernel32.GetModuleFileNameW(ctypes.c_void_p(handle), name, len(name))
        path = Path(name.value)
    return {"path": str(path), "version": _version(path)} if path.exists() else {}


def _version(path: Path) -> str:
    import ctypes

    if sys.platform != "win32":
        return ""
    version = ctypes.WinDLL("version")
    size = version.GetFileVersionInfoSizeW(str(path), None)
    data = ctypes.create_string_buffer(size or 1)
    found, length = ctypes.c_void_p(), ctypes.c_uint()
    if not size or not version.GetFileVersionInfoW(str(path), 0, size, data):
        return ""
    if not version.VerQueryValueW(data, "\\", ctypes.byref(found), ctypes.byref(length)) or not found.value:
        return ""
    numbers = ctypes.cast(found, ctypes.POINTER(ctypes.c_uint32))
    return ".".join(str(part) for half in (numbers[2], numbers[3]) for part in (half >> 16, half & 0xFFFF))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

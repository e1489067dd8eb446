"""Python runs this at every start under Wine: it makes up for what Wine lacks, and for nothing else.

Two things differ from real Windows in ways that would let a test lie:

- ``os.symlink`` succeeds under Wine and makes nothing. A plain Windows account may not make symbolic links
  and gets an error: so do tests here.
- DirectML needs two methods of Direct3D 12 that Wine does not have; ``direct3d12_for_wine`` fills them in
  before ONNX Runtime is first imported.
"""

import importlib.abc
import os
import sys

# ERROR_PRIVILEGE_NOT_HELD
# Source: https://learn.microsoft.com/windows/win32/debug/system-error-codes--1300-1699-
PRIVILEGE_NOT_HELD = 1314


def _symlink(src, dst, target_is_directory=False, *, dir_fd=None):
    message = "A required privilege is not held by the client"
    raise OSError(22, message, os.fspath(src), PRIVILEGE_NOT_HELD, os.fspath(dst))


class _BeforeOnnxRuntime(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):  # noqa: ARG002
        if fullname == "onnxruntime":
            sys.meta_path.remove(self)
            import direct3d12_for_wine

            direct3d12_for_wine.fill_in()


os.symlink = _symlink
sys.meta_path.insert(0, _BeforeOnnxRuntime())

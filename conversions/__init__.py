"""Stable Diffusion checkpoints to ONNX packages: a library that never prints and opens no socket.

Its public face::

    from conversions import convert, inspect, open_checkpoint, verify

    checkpoint = open_checkpoint("stable-diffusion-v1-4")
    convert(checkpoint, "package", target="cpu")

Everything else may change.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conversions.api import convert, inspect, open_checkpoint, verify

# ONNX Runtime reads this when it is imported, and else makes a database in the user's cache and looks its
# server up. Whoever sets it to anything else decides for themselves.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["convert", "inspect", "open_checkpoint", "verify"]


def __getattr__(name: str) -> object:
    """Load the public functions when they are asked for, so that importing the package stays cheap."""
    if name in __all__:
        return getattr(importlib.import_module("conversions.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

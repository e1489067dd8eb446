"""From nothing to Stable Diffusion images on a GPU that is not NVIDIA's."""

import os

from sdsetup import lazy_imports

__all__ = ["__version__"]

try:
    from sdsetup._version import __version__  # the build writes it, from git's tag
except ImportError:  # a checkout that was not built
    __version__ = "0.1.0.dev0"

# ONNX Runtime reads this when it is imported, and else makes a database in the user's cache and looks its
# server up. Whoever sets it to anything else decides for themselves.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

lazy_imports.install()

"""Stable Diffusion checkpoints to ONNX packages: a library that never prints and opens no socket."""

import os

# ONNX Runtime reads this when it is imported, and else makes a database in the user's cache and looks its
# server up. Whoever sets it to anything else decides for themselves.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

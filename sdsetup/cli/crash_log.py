"""A file with the details of an error that nobody thought of; people see one line that names it."""

from __future__ import annotations

import contextlib
import platform
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import platformdirs

from sdsetup import __version__
from sdsetup.redaction import redact


def write(error: BaseException, arguments: list[str]) -> Path | None:
    """Write an error with its traceback to a file, without secrets.

    Args:
        error: What was raised.
        arguments: The command line, after the program's name.

    Returns:
        The file; None where no place could be written.
    """
    text = "\n".join(
        (
            f"sdsetup {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"sdsetup {' '.join(arguments)}",
            "".join(traceback.format_exception(error)),
        )
    )
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{threading.get_native_id()}.log"
    for folder in (platformdirs.user_log_path("sdsetup", appauthor=False), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text(redact(text), encoding="utf-8", errors="backslashreplace")
            return path
    return None


def watch_threads() -> None:
    """Send errors that end a thread to a file instead of the screen."""

    def hook(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None:
            write(ended.exc_value, sys.argv[1:])

    threading.excepthook = hook

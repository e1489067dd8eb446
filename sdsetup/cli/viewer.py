"""Open a file in the program that the person's desktop opens it with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sdsetup.bootstrap import console


def open_in_viewer(path: Path) -> bool:
    """Open a file where somebody sits at a desktop; never waits, never fails.

    Returns:
        Whether a program was started.
    """
    if not console.is_attended():
        return False
    try:
        if sys.platform == "win32":
            os.startfile(path)  # noqa: S606 - what a double click does
            return True
        program = "open" if sys.platform == "darwin" else "xdg-open"
        desktop = sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
        if not desktop or shutil.which(program) is None:
            return False
        quiet = subprocess.DEVNULL
        subprocess.Popen(
            [program, str(path)], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
    except OSError:
        return False
    return True

"""Runs one script in a root made of layers, in namespaces that take everything with them when they end."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent

# New mount and process namespaces: they end when this Python does, however it ends, and all in them with it.
NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child"),
    *("--mount", "--propagation", "private", "--pid", "--mount-proc"),
)


def enter(
    layers: Sequence[Path],
    script: str,
    arguments: Sequence[str] = (),
    *,
    limit_seconds: float,
    upper: Path | None = None,
    data: Path | None = None,
    lang: str = "C.UTF-8",
) -> int:
    """Run a script of this folder inside the root that ``layers`` make.

    Args:
        layers: Folders to stack, the topmost first; none of them is written.
        script: File name of a shell script beside this file.
        arguments: Its arguments.
        limit_seconds: After this long everything inside is ended.
        upper: Where to keep what the script writes (in its subfolder ``upper``); None forgets it.
        data: A folder to show inside, read-only, as ``/data``.
        lang: The locale inside; it decides the Windows code page.

    Returns:
        The script's exit status.

    Raises:
        subprocess.TimeoutExpired: The limit was reached.
    """
    with tempfile.TemporaryDirectory(prefix="windows-box-") as box:
        environment = {
            **os.environ,
            "BOX": box,
            "LAYERS": ":".join(str(layer) for layer in layers),
            "UPPER": str(upper or ""),
            "DATA": str(data.resolve() if data else ""),
            "WINDOWS_LANG": lang,
        }
        command = [*NAMESPACES, "sh", str(HERE / "enter.sh"), (HERE / script).read_text(), *arguments]
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, timeout=limit_seconds, check=False
        ).returncode

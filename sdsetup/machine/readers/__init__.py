"""Readers of the machine, one file a topic. Standard library only."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdsetup.bootstrap import command_name
from sdsetup.machine.facts import Questions

Reader = Callable[[Questions], Any]

# How long each reader may take. A first DirectML session on a cold driver takes seconds.
LIMITS_SECONDS: Mapping[str, float] = {
    "machine": 5,
    "python": 10,
    "adapters": 10,
    "folders": 10,
    "packages": 30,
    "imports": 95,
    "runtime": 65,
    "tools": 5,
    "hub": 12,
    "plan": 25,
}


def readers() -> dict[str, Reader]:
    """List the readers by the field of Environment that each fills."""
    from sdsetup.machine import adapters
    from sdsetup.machine.readers import (
        folders,
        hub,
        imports,
        machine,
        model_needs,
        packages,
        python,
        runtime,
        tools,
    )

    def read_adapters(_questions: Questions) -> Any:
        return adapters.read()

    return {
        "runtime": runtime.read,
        "hub": hub.read,
        "plan": model_needs.read,
        "python": python.read,
        "adapters": read_adapters,
        "folders": folders.read,
        "packages": packages.read,
        "imports": imports.read,
        "tools": tools.read,
        "machine": machine.read,
    }


def identity() -> dict[str, Any]:
    """Name the shell the person types in, and what a report must hide: user, home folder, host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = ""
    home, command = str(Path("~").expanduser()), command_name.argv()
    return {"shell": shell(), "command": command, "home": home, "user": user, "host": platform.node()}


def shell() -> str:
    """Name the shell that the person types in: ``sh``, ``fish``, ``cmd`` or ``powershell``."""
    if sys.platform != "win32":
        return "fish" if Path(os.environ.get("SHELL", "")).name == "fish" else "sh"
    if "SHELL" in os.environ and "MSYSTEM" in os.environ:
        return "sh"
    # cmd.exe inherits the machine's PSModulePath; PowerShell puts the user's folder in front.
    modules = os.environ.get("PSMODULEPATH", "").lower()
    return "powershell" if os.environ.get("USERPROFILE", "?").lower() in modules else "cmd"

"""The running interpreter, its pip, and the environment that sdsetup keeps."""

from __future__ import annotations

import importlib.util
import platform
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

from sdsetup.bootstrap import child_environment, environment_maker, foreign_paths, places
from sdsetup.errors import SetupError
from sdsetup.machine.facts import Python, Questions


def read(_questions: Questions) -> Python:
    """Read the interpreter; pip is really started, since a torn one imports and then fails."""
    pip, pip_error = _pip()
    settings, settings_error = child_environment.PipSettings(), ""
    try:
        settings = child_environment.pip_settings(sys.executable) if pip else settings
    except SetupError as error:
        settings_error = error.message
    environment = places.environment_folder()
    fault = environment_maker.fault(environment)
    return Python(
        version=sys.version_info[:3],
        bits=struct.calcsize("P") * 8,
        implementation=platform.python_implementation(),
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        executable=sys.executable,
        store="WindowsApps" in Path(sys.base_prefix).parts or "WindowsApps" in Path(sys.executable).parts,
        in_environment=sys.prefix != sys.base_prefix,
        environment=str(environment),
        environment_state=environment_maker.state(environment),
        environment_fault=fault.message if fault is not None else "",
        environment_advice=fault.hint if fault is not None else "",
        pip=pip,
        pip_error=pip_error,
        has_ensurepip=importlib.util.find_spec("ensurepip") is not None,
        pip_left_out=settings.left_out,
        pip_kept=settings.kept,
        pip_settings_error=settings_error,
        left_out_paths=foreign_paths.left_out(),
    )


def _pip() -> tuple[str, str]:
    """Give pip's version, or what it said instead."""
    if importlib.util.find_spec("pip") is None:
        return "", "No module named pip"
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "pip", "--version"],
            capture_output=True, text=True, errors="replace", timeout=9, check=False,
            stdin=subprocess.DEVNULL, env=child_environment.for_pip(child_environment.PipSettings()),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return "", str(error)
    words = answer.stdout.split()
    if answer.returncode == 0 and words[:1] == ["pip"]:
        return words[1], ""
    said = (answer.stderr or answer.stdout).strip().splitlines()
    return "", said[-1] if said else f"exit status {answer.returncode}"

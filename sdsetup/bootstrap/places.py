"""Where sdsetup is: the source tree, the environment, the folder of the user's.

Standard library only.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

from sdsetup.bootstrap import integrity

_HERE = Path(__file__).resolve().parents[2]


def checkout() -> Path | None:
    """Find the folder of the source tree this code runs from; None when it was installed as a wheel."""
    project = _HERE / "pyproject.toml"
    try:
        named = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return None
    return _HERE if named == "sdsetup" else None


def environment_folder() -> Path:
    """Say where the environment is, or would be.

    That is the virtual environment this process runs in when sdsetup was installed there to stay; else
    ``.venv`` beside pyproject.toml; else a folder of the user's.
    """
    here = Path(sys.prefix)
    if sys.prefix != sys.base_prefix and "sdsetup" in distributions(here) and not is_passing(here):
        return here
    source = checkout()
    if source is not None:
        return source / ".venv"
    return data_folder() / "venv"


def is_passing(environment: Path) -> bool:
    """Tell whether an environment is one that ``uvx`` or ``pipx run`` keep for a while, shared between runs.

    Source: uv's cache has buckets named ``archive-v0`` and ``environments-v2``; pipx keeps such environments
    in ``pipx/.cache``, or ``pipx`` in the user's cache, and those of ``pipx install`` in ``pipx/venvs``.
    """
    parts = environment.resolve().parts
    if any(part.startswith(("archive-v", "environments-v")) for part in parts):
        return True
    return (environment / "pipx_metadata.json").is_file() and environment.parent.name != "venvs"


def data_folder() -> Path:
    """Name the folder of the user's that keeps what sdsetup installs."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sdsetup"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "sdsetup"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sdsetup"


def python_of(environment: Path) -> Path:
    """Name the Python of an environment."""
    if sys.platform == "win32":
        return environment / "Scripts" / "python.exe"
    return environment / "bin" / "python"


def inside(environment: Path) -> bool:
    """Tell whether this process runs in the environment."""
    return Path(sys.prefix).resolve() == environment.resolve()


def distributions(environment: Path) -> set[str]:
    """List the normalized names of the distributions that an environment holds, without starting it."""
    return {name for site in sites(environment) for name in integrity.installed(site)}


def sites(environment: Path) -> list[Path]:
    """List an environment's folders of packages, without starting it."""
    pattern = "Lib/site-packages" if sys.platform == "win32" else "lib/python3.*/site-packages"
    return sorted(environment.glob(pattern))

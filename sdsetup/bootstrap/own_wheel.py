"""Pack the running, installed copy of sdsetup as a wheel, to install it into another environment.

``uvx sdsetup install`` runs in an environment that does not last. The one that lasts gets this very copy,
wherever it came from: an index, a file, a repository.

Standard library only. Source: PyPA specification "Binary distribution format".
"""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from importlib import metadata
from pathlib import Path

from sdsetup.errors import SetupError

# What pip and uv write when they install; a wheel holds none of it.
_OF_INSTALLATIONS = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "RECORD", "uv_cache.json"})


def place(folder: Path) -> Path:
    """Name the wheel that ``write`` makes in a folder.

    Raises:
        SetupError: ``install.own-files``: this copy was not installed from a wheel.
    """
    try:
        files = metadata.distribution("sdsetup").files or []
    except metadata.PackageNotFoundError as error:
        raise SetupError(
            "install.own-files", f"sdsetup's own files cannot be read: {error}.", _HINT
        ) from error
    info = next((file.parent.name for file in files if file.match("*.dist-info/WHEEL")), "")
    if not info:
        raise _no_wheel()
    return folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"


def write(folder: Path) -> Path:
    """Write the wheel, whole or not at all; one that is there already, of the same version, is replaced.

    Args:
        folder: Where to, made when it is not there.

    Returns:
        The wheel.

    Raises:
        SetupError: ``install.own-files``: this copy was not installed from a wheel, or a file is gone.
    """
    path = place(folder)
    try:
        distribution = metadata.distribution("sdsetup")
        listed = distribution.files or []
        kept = {
            file.as_posix(): Path(str(file.locate())).read_bytes()
            for file in listed
            if ".." not in file.parts
            and "__pycache__" not in file.parts
            and file.name not in _OF_INSTALLATIONS
            and not file.is_absolute()
        }
    except OSError as error:
        raise SetupError(
            "install.own-files", f"sdsetup's own files cannot be read: {error}.", _HINT
        ) from error
    info = next(name.rpartition("/")[0] for name in kept if name.endswith(".dist-info/WHEEL"))
    if "sdsetup/__main__.py" not in kept:
        raise _no_wheel()
    kept[f"{info}/RECORD"] = _record(kept, info)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(kept.items()):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    partial.replace(path)
    return path


def _no_wheel() -> SetupError:
    return SetupError("install.own-files", "This copy of sdsetup was not installed from a wheel.", _HINT)


_HINT = "install sdsetup again, or run it from a clone of its repository."


def _record(files: dict[str, bytes], info: str) -> bytes:
    def line(name: str, content: bytes) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        return f"{name},sha256={digest},{len(content)}"

    lines = [*(line(name, content) for name, content in sorted(files.items())), f"{info}/RECORD,,"]
    return ("\n".join(lines) + "\n").encode()

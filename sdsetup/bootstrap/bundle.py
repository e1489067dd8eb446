"""A folder that carries an installation to a machine without a network: sdsetup, packages, a model.

Standard library only.

    sdsetup, conversions    the program, which starts from there: python -m sdsetup install --offline .
    wheels                  what pip installs, sdsetup included
    models/NAME             a checkpoint, in the diffusers layout
    bundle.json             for which Python and system, and a hash of every file

The hashes show what was torn on the way. Whoever can change a file can change its hash as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdsetup import __version__
from sdsetup.bootstrap import child_environment, installer, known_good, own_wheel, places, torch_source
from sdsetup.bootstrap.action import InstallAction, run
from sdsetup.bootstrap.command_name import quoted
from sdsetup.bootstrap.console import Steps, say
from sdsetup.bootstrap.installer import Wanted
from sdsetup.errors import SetupError

_DESCRIPTION = "bundle.json"
_FORMAT = 2
_PROGRAM = ("sdsetup", "conversions")
# macOS and Windows leave these on sticks; names that begin with ._ are macOS' too.
_OF_FILE_MANAGERS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that fits this machine.

    Attributes:
        folder: Where it is.
        extras: Extras of the project that its packages are enough for, besides the flavour.
        flavour: The ONNX Runtime that it holds.
    """

    folder: Path
    extras: tuple[str, ...]
    flavour: installer.Flavour

    @property
    def wheels(self) -> Path:
        """The folder of packages."""
        return self.folder / "wheels"

    @property
    def own_wheel(self) -> Path:
        """The wheel of sdsetup."""
        return next(self.wheels.glob("sdsetup-*.whl"))

    def use(self) -> None:
        """Let pip, in this process's children, take packages from here and from nowhere else."""
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
            os.environ.pop(name, None)
        # As an address: pip takes spaces in this variable for the ends of paths.
        links = self.wheels.absolute().as_uri()
        os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": links, "HF_HUB_OFFLINE": "1"}


def model_folder(folder: Path, model: str) -> Path:
    """Name the folder of a model in a bundle."""
    return folder / "models" / model.strip("/").replace("/", "--")


def make(folder: Path, environment: Path, wanted: Wanted) -> None:
    """Write program and packages of a bundle; what an interrupted run left is completed.

    Args:
        folder: Where to, made when it is not there.
        environment: A finished environment, whose pip is used.
        wanted: What it holds.

    Raises:
        SetupError: A step failed, and why.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / _DESCRIPTION).is_file():
        raise SetupError(
            "install.bundle", f"{folder} holds other things than a bundle.", "name a new folder."
        )
    python, wheels = places.python_of(environment), folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    models = _models_in(folder)
    for name in _PROGRAM:
        if (folder / name).resolve() == (Path(__file__).resolve().parents[2] / name):
            raise SetupError(
                "install.bundle", f"{folder} is where this program runs from.", "name another folder."
            )
    _describe(folder, wanted, files=models)  # so that an interrupted one is known for a bundle
    steps = Steps(f"Making a bundle in {folder}")
    for name in _PROGRAM:
        with steps.step(f"copying {name}"):
            shutil.rmtree(folder / name, ignore_errors=True)
            source = Path(__file__).resolve().parents[2] / name
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for old in wheels.glob("sdsetup-*.whl"):
        old.unlink()
    if wanted.editable:
        label, pip = "building sdsetup's wheel", (str(python), "-m", "pip", "--disable-pip-version-check")
        argv = (*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), wanted.requirement)
        with steps.step(label) as on_line:
            run(InstallAction(label=label, argv=argv), on_line)
    else:
        own_wheel.write(wheels)
    settings = child_environment.pip_settings(str(python))
    torch = torch_source.ANY
    if "convert" in wanted.extras:
        torch = torch_source.find(python, wanted.flavour, "", settings)
    held = replace(
        wanted, extras=tuple(each for each in wanted.extras if each != "convert" or not torch.left_out)
    )
    action = installer.download(python, next(wheels.glob("sdsetup-*.whl")), held, wheels, torch)
    with steps.step(action.label) as on_line:
        run(action, on_line)
    # pip keeps the wheel that a wheel's own path names out of the folder: it is there already.
    with steps.step("hashing"):
        files = _records(folder, ("wheels", *_PROGRAM)) | models
        _describe(folder, held, files)
    packages = [entry["bytes"] for name, entry in files.items() if name.startswith("wheels/")]
    steps.end(f"{len(packages)} packages, {sum(packages) / 1e6:.0f} MB")


def say_how_to_use(folder: Path, model: str) -> None:
    """Say what to type on the other machine."""
    more = "" if model == "demo" else f" {model}"
    program = "py -3" if sys.platform == "win32" else "python3"
    say(f"The bundle: {folder}")
    say(f"On the other machine, in that folder: {program} -m sdsetup install --offline .{more}")


def add_model(folder: Path, place: Path) -> None:
    """Write the hashes of a model's files, once they are in the bundle.

    Args:
        folder: The bundle.
        place: The model's folder in it.
    """
    file = folder / _DESCRIPTION
    document = json.loads(file.read_text(encoding="utf-8"))
    name = place.relative_to(folder).as_posix()
    others = {path: entry for path, entry in document["files"].items() if not _is_in(path, name)}
    _write(folder, {**document, "files": {**others, **_records(folder, (name,))}})


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle and see that program and packages are whole and fit this Python and system.

    Raises:
        SetupError: ``install.bundle``; says what is wrong.
    """
    document = _read(folder)
    try:
        made_for, extras = dict(document["made_for"]), tuple(str(each) for each in document["extras"])
        flavour = str(document["flavour"])
    except (KeyError, TypeError, ValueError) as error:
        raise _no_bundle(folder, error) from error
    for what, here in _machine().items():
        if made_for.get(what) != here:
            raise SetupError(
                "install.bundle",
                f"{folder} was made for {what} {made_for.get(what)}; this is {here}.",
                f"make one on a machine with {what} {here}, or use another Python.",
            )
    if not any(_is_in(name, "wheels") for name in document["files"]):
        raise SetupError(
            "install.bundle",
            f"{folder} was not finished.",
            f"run the same command again where it was made: sdsetup install --bundle {quoted(folder.name)}",
        )
    _demand_whole(folder, document["files"], ("wheels", *_PROGRAM))
    return Bundle(folder=folder, extras=extras, flavour=installer.flavour_for(sys.platform, flavour))


def require_model(folder: Path, place: Path) -> None:
    """See that a model's files are whole.

    Args:
        folder: The bundle.
        place: The model's folder in it.

    Raises:
        SetupError: ``install.bundle``; says what is wrong.
    """
    _demand_whole(folder, _read(folder)["files"], (place.relative_to(folder).as_posix(),))


def _models_in(folder: Path) -> dict[str, Any]:
    """Give the hashes of models that an earlier run put into a bundle."""
    try:
        files = _read(folder)["files"]
    except SetupError:
        return {}
    return {name: entry for name, entry in files.items() if _is_in(name, "models")}


def _read(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            raise ValueError(f"it has the format {document['format']}, not {_FORMAT}")
        return {**document, "files": {str(name): dict(entry) for name, entry in document["files"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_bundle(folder, error) from error


def _no_bundle(folder: Path, error: Exception) -> SetupError:
    missing = isinstance(error, FileNotFoundError) and not folder.exists()
    return SetupError(
        "install.bundle",
        f"there is no folder {folder}."
        if missing
        else f"{folder} is no bundle, or was not finished: {error}.",
        "make one on a machine with a network: uvx sdsetup install --bundle FOLDER",
    )


def _demand_whole(folder: Path, files: Mapping[str, Any], parts: Iterable[str]) -> None:
    """See that some folders of a bundle hold the files that were put there, and no others."""
    for part in parts:
        listed = {name for name in files if _is_in(name, part)}
        there = {path.relative_to(folder).as_posix() for path in _files(folder / part)}
        wrong = sorted(listed ^ there) or sorted(
            name for name in listed if _record(folder / name) != files[name]
        )
        if wrong or not listed:
            raise SetupError(
                "install.bundle",
                f"{folder / (wrong[0] if wrong else part)} is missing, was added, or was changed on the way.",
                "copy the bundle again, into an empty folder.",
            )


def _is_in(name: str, folder: str) -> bool:
    return name.startswith(f"{folder}/")


def _records(folder: Path, parts: Iterable[str]) -> dict[str, Any]:
    return {
        path.relative_to(folder).as_posix(): _record(path) for part in parts for path in _files(folder / part)
    }


def _files(folder: Path) -> list[Path]:
    """List the files below a folder, but for what Python and file managers write there unasked."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.name not in _OF_FILE_MANAGERS
        and not path.name.startswith("._")
    )


def _machine() -> dict[str, str]:
    return {
        "Python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "system": sys.platform,
        "processor": platform.machine().lower(),
    }


def _describe(folder: Path, wanted: Wanted, files: dict[str, Any]) -> None:
    document = {
        "format": _FORMAT,
        "sdsetup": __version__,
        "made_for": _machine(),
        "flavour": wanted.flavour,
        "extras": wanted.extras,
        "pip": known_good.versions()["pip"],
        "files": files,
    }
    _write(folder, document)


def _write(folder: Path, document: Mapping[str, Any]) -> None:
    partial = folder / f"{_DESCRIPTION}.partial"
    partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
    partial.replace(folder / _DESCRIPTION)


def _record(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}

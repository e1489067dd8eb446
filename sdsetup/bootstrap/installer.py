"""What to install where: facts in, a list of actions out.

Standard library only: the bootstrap uses it before anything is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sdsetup.bootstrap import foreign_paths, known_good, torch_source
from sdsetup.bootstrap.action import InstallAction
from sdsetup.bootstrap.torch_source import TorchSource
from sdsetup.errors import SetupError

Flavour = Literal["directml", "windowsml", "cpu", "cuda", "migraphx", "openvino"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

# Each of these distributions writes the same folder `onnxruntime`; the last one installed wins.
FLAVOUR_DISTRIBUTIONS: dict[Flavour, str] = {
    "directml": "onnxruntime-directml",
    "windowsml": "onnxruntime-windowsml",
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu",
    "migraphx": "onnxruntime-migraphx",
    "openvino": "onnxruntime-openvino",
}


# Python compiles what it imports. Compiling all, ONNX Runtime's sympy with it, takes longer than unpacking.
_HOW = ("--progress-bar=off", "--no-compile")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an environment is to hold.

    Attributes:
        requirement: What pip is asked for: a checkout's folder, or a name with its version.
        editable: The requirement is a checkout, to be used in place.
        flavour: Which ONNX Runtime.
        extras: Extras of the project besides the flavour.
        groups: Dependency groups of the checkout's pyproject.toml.
        torch_required: Whether it is an error when no torch for this machine can be had.
    """

    requirement: str
    editable: bool
    flavour: Flavour
    extras: tuple[str, ...] = ("convert",)
    groups: tuple[str, ...] = ()
    torch_required: bool = False


def flavour_for(platform: str, asked: str | None = None) -> Flavour:
    """Choose the ONNX Runtime for a machine.

    Windows gets DirectML, which runs on every GPU with Direct3D 12 and brings the CPU provider along.
    Elsewhere the CPU build is the one that always works; CUDA is a download of gigabytes and is taken
    only when asked for.

    Args:
        platform: A value of ``sys.platform``.
        asked: What the user asked for, or None.

    Raises:
        SetupError: The flavour does not exist, or not for this platform.
    """
    if asked is None:
        return "directml" if platform == "win32" else "cpu"
    for flavour in FLAVOURS:
        if flavour == asked:
            break
    else:
        raise SetupError(
            "install.flavour",
            f"There is no ONNX Runtime flavour {asked!r}.",
            f"choose one of: {', '.join(FLAVOURS)}",
        )
    if not exists_for(platform, flavour):
        raise SetupError(
            "install.flavour",
            f"ONNX Runtime with {flavour} does not exist for this system.",
            f"leave the option out to get {flavour_for(platform)}",
        )
    return flavour


def exists_for(platform: str, flavour: Flavour) -> bool:
    """Tell whether wheels of a flavour are published for a platform (a value of ``sys.platform``)."""
    where: dict[Flavour, tuple[str, ...]] = {
        "directml": ("win32",),
        "windowsml": ("win32",),
        "migraphx": ("linux",),
        "cuda": ("win32", "linux"),
        "openvino": ("win32", "linux"),
    }
    return platform in where.get(flavour, (platform,))


def restore_pip(python: Path | str) -> list[InstallAction]:
    """List what brings pip back from the copy that Python carries."""
    return [
        # A torn pip still looks installed, and ensurepip then leaves it alone: it goes first.
        InstallAction(label="removing what is left of pip", argv=(str(python), "-c", _REMOVE_PIP)),
        InstallAction(
            label="adding pip", argv=(str(python), "-m", "ensurepip", "--upgrade", "--default-pip")
        ),
    ]


def upgrade_pip(python: Path | str) -> InstallAction:
    """Bring the tested pip: older ones know no dependency groups."""
    return InstallAction(
        label="upgrading pip",
        argv=(*_pip(python), "install", *_HOW, "--upgrade", f"pip=={known_good.versions()['pip']}"),
    )


def mend(python: str, distributions: Sequence[str]) -> InstallAction:
    """Bring distributions of a Python to their known-good version, whole, with all that they need."""
    return InstallAction(
        label=f"mending {', '.join(distributions)}",
        argv=(python, "-P", "-m", "sdsetup.bootstrap.mend", *distributions),
        variables={"PYTHONPATH": foreign_paths.ROOT},
    )


_REMOVE_PIP = (
    "import glob, os, shutil, sysconfig\n"
    "place = sysconfig.get_path('purelib')\n"
    "for left in ('pip', 'pip-*.dist-info'):\n"
    "    for folder in glob.glob(os.path.join(glob.escape(place), left)):\n"
    "        shutil.rmtree(folder, ignore_errors=True)\n"
)


def _pip(python: Path | str) -> tuple[str, ...]:
    return (str(python), "-m", "pip", "--disable-pip-version-check", "--no-input")


def install_actions(
    python: Path,
    wanted: Wanted,
    installed: Sequence[str] = (),
    torn: Mapping[str, str] | None = None,
    torch: TorchSource = torch_source.ANY,
) -> list[InstallAction]:
    """List what brings an environment with the tested pip to the wanted state, in order.

    Args:
        python: The environment's Python.
        wanted: What the environment is to hold.
        installed: Normalized names of the distributions that it holds now.
        torn: Versions of those among them that are not whole, by name.
        torch: Where torch comes from.
    """
    actions: list[InstallAction] = []
    keep = FLAVOUR_DISTRIBUTIONS[wanted.flavour]
    present = [name for name in FLAVOUR_DISTRIBUTIONS.values() if name in installed]
    # The project itself is installed in any case.
    damaged = {name: version for name, version in (torn or {}).items() if name not in {*present, "sdsetup"}}
    if present and (present != [keep] or (torn and keep in torn)):
        # Removing one of two also removes files of the other: all go, one comes back.
        actions.append(_fetch(str(python), [keep]))
        actions.append(
            InstallAction(
                label=f"removing {' and '.join(present)}, to install {keep} whole",
                argv=(*_pip(python), "uninstall", "--yes", *present),
            )
        )
    if damaged:
        actions.append(reinstall(str(python), damaged, torch))
    extras = ",".join(
        (*(extra for extra in wanted.extras if extra != "convert" or not torch.left_out), wanted.flavour)
    )
    folder_or_name, pinned, version = wanted.requirement.partition("==")
    requirement = f"{folder_or_name}[{extras}]{pinned}{version}"
    groups = (argument for group in wanted.groups for argument in ("--group", _group(wanted, group)))
    lean = torch.left_out or "convert" not in wanted.extras
    size = "120 MB" if lean else "350 MB"
    if not lean and sys.platform == "linux" and torch == torch_source.ANY and "torch" not in installed:
        size = "3 GB with CUDA's"
    actions.append(
        InstallAction(
            label=f"installing the libraries, about {size} the first time",
            argv=(
                *_pip(python),
                "install",
                *_HOW,
                "--constraint",
                str(known_good.CONSTRAINTS),
                *_from(torch),
                *(("--editable",) if wanted.editable else ()),
                requirement,
                *((torch.requirement,) if torch.requirement else ()),
                *groups,
            ),
        )
    )
    return actions


def _from(torch: TorchSource) -> tuple[str, ...]:
    return ("--extra-index-url", torch.index) if torch.index else ()


def _group(wanted: Wanted, group: str) -> str:
    return f"{Path(wanted.requirement) / 'pyproject.toml'}:{group}" if wanted.editable else group


def download(
    python: Path, wheel: Path, wanted: Wanted, folder: Path, torch: TorchSource = torch_source.ANY
) -> InstallAction:
    """Download all that an environment of a wheel of sdsetup needs, pip included.

    Args:
        python: The environment's Python.
        wheel: Of sdsetup.
        wanted: What the environment is to hold.
        folder: Where to.
        torch: Where torch comes from.
    """
    requirement = f"{wheel}[{','.join((*wanted.extras, wanted.flavour))}]"
    return InstallAction(
        label="downloading packages",
        argv=(
            *(*_pip(python), "download", "--progress-bar=off", "--dest", str(folder)),
            *("--constraint", str(known_good.CONSTRAINTS), *_from(torch), requirement),
            *((torch.requirement,) if torch.requirement else ()),
            f"pip=={known_good.versions()['pip']}",
        ),
    )


def reinstall_flavour(python: str, flavour: Flavour) -> list[InstallAction]:
    """List what leaves exactly one ONNX Runtime, whole, in an environment."""
    distribution = FLAVOUR_DISTRIBUTIONS[flavour]
    return [
        _fetch(python, [distribution]),
        InstallAction(
            label="removing every ONNX Runtime",
            argv=(*_pip(python), "uninstall", "--yes", *FLAVOUR_DISTRIBUTIONS.values()),
        ),
        add(python, [distribution]),
    ]  # fmt: skip


def _fetch(
    python: str,
    distributions: Sequence[str],
    torch: TorchSource = torch_source.ANY,
    installed: Mapping[str, str] | None = None,
) -> InstallAction:
    """Fetch distributions before others are removed: what cannot be had must not cost what is there."""
    named = _pinned(distributions, torch, installed)
    return InstallAction(
        label=f"fetching {', '.join(named)}",
        argv=(
            *(*_pip(python), "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"),
            *(*_from(torch), "--constraint", str(known_good.CONSTRAINTS), *named),
        ),
    )


def add(python: str, distributions: Sequence[str], torch: TorchSource = torch_source.ANY) -> InstallAction:
    """Install distributions that are missing, at their known-good version, with all that they need."""
    named = _pinned(distributions, torch)
    return InstallAction(
        label=f"installing {', '.join(named)}",
        argv=(
            *(*_pip(python), "install", *_HOW, *_from(torch)),
            *("--constraint", str(known_good.CONSTRAINTS), *named),
        ),
    )


def reinstall(
    python: str, distributions: Mapping[str, str], torch: TorchSource = torch_source.ANY
) -> InstallAction:
    """Install distributions that are there again, whole, at their known-good version or else the present one.

    Args:
        python: The environment's Python.
        distributions: Their present versions by name.
        torch: Where torch comes from.
    """
    named = _pinned(list(distributions), torch, distributions)
    return InstallAction(
        label=f"installing {', '.join(named)} again",
        argv=(
            *(*_pip(python), "install", *_HOW, "--force-reinstall", "--no-deps"),
            *(*_from(torch), "--constraint", str(known_good.CONSTRAINTS), *named),
        ),
    )


def _pinned(
    distributions: Sequence[str],
    torch: TorchSource = torch_source.ANY,
    installed: Mapping[str, str] | None = None,
) -> list[str]:
    pins = {**(installed or {}), **known_good.versions()}
    named = {}
    for name in distributions:
        version = pins.get(known_good.normalized(name.partition("[")[0]))
        named[name] = f"{name}=={version}" if version else name
    if torch.requirement and "torch" in named:
        named["torch"] = torch.requirement
    return list(named.values())


def forget(
    python: str, damaged: Mapping[str, str], folders: Sequence[Path], torch: TorchSource
) -> list[InstallAction]:
    """Remove distributions' descriptions that pip cannot read, so that it installs those anew.

    Args:
        python: The environment's Python.
        damaged: Versions by name of the distributions that are not whole.
        folders: The descriptions.
        torch: Where torch comes from.
    """
    code = "import shutil, sys\nfor folder in sys.argv[1:]: shutil.rmtree(folder)\n"
    named = {known_good.normalized(folder.name.partition("-")[0]) for folder in folders} - {"sdsetup"}
    removal = InstallAction(
        label=f"removing {', '.join(folder.name for folder in folders)}, which pip cannot read",
        argv=(python, "-c", code, *map(str, folders)),
    )
    return [*([_fetch(python, sorted(named), torch, damaged)] if named else []), removal]

"""What to install where: facts in, a list of actions out; and the running of one action.

Standard library only: the bootstrap uses it before anything is installed. Every action is an argument
list that is started directly; no shell ever sees it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from sdsetup.bootstrap import known_good
from sdsetup.errors import SetupError

Flavour = Literal["directml", "cpu", "cuda", "migraphx", "openvino"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

# Each of these distributions writes the same folder `onnxruntime`; the last one installed wins.
FLAVOUR_DISTRIBUTIONS: dict[Flavour, str] = {
    "directml": "onnxruntime-directml",
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu",
    "migraphx": "onnxruntime-migraphx",
    "openvino": "onnxruntime-openvino",
}


@dataclass(frozen=True, kw_only=True)
class InstallAction:
    """One program to start.

    Attributes:
        label: What it does, as a person reads it: ``"upgrading pip"``.
        argv: The program and its arguments.
        variables: Environment variables it gets on top of the present ones.
    """

    label: str
    argv: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an environment is to hold.

    Attributes:
        requirement: What pip is asked for: a checkout's folder, or a name with its version.
        editable: The requirement is a checkout, to be used in place.
        flavour: Which ONNX Runtime.
        extras: Extras of the project besides the flavour.
        groups: Dependency groups of the checkout's pyproject.toml.
    """

    requirement: str
    editable: bool
    flavour: Flavour
    extras: tuple[str, ...] = ("convert",)
    groups: tuple[str, ...] = ()


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
        "migraphx": ("linux",),
        "cuda": ("win32", "linux"),
        "openvino": ("win32", "linux"),
    }
    return platform in where.get(flavour, (platform,))


def install_actions(python: Path, wanted: Wanted, installed: Sequence[str] = ()) -> list[InstallAction]:
    """List what brings an environment to the wanted state, in order.

    Args:
        python: The environment's Python.
        wanted: What the environment is to hold.
        installed: Normalized names of the distributions that it holds now.
    """
    pip = (str(python), "-m", "pip", "--disable-pip-version-check", "--no-input")
    actions: list[InstallAction] = []
    if "pip" not in installed:
        actions.append(
            InstallAction(label="adding pip", argv=(str(python), "-m", "ensurepip", "--default-pip"))
        )
    actions.append(
        InstallAction(
            # pip < 25.1 knows no dependency groups.
            label="upgrading pip",
            argv=(*pip, "install", "--upgrade", f"pip=={known_good.versions()['pip']}"),
        )
    )
    keep = FLAVOUR_DISTRIBUTIONS[wanted.flavour]
    present = [name for name in FLAVOUR_DISTRIBUTIONS.values() if name in installed]
    if present and present != [keep]:
        # Removing one of two also removes files of the other: all go, one comes back.
        actions.append(
            InstallAction(
                label=f"removing {' and '.join(present)}, which would hide {keep}",
                argv=(*pip, "uninstall", "--yes", *present),
            )
        )
    extras = ",".join((*wanted.extras, wanted.flavour))
    folder_or_name, pinned, version = wanted.requirement.partition("==")
    requirement = f"{folder_or_name}[{extras}]{pinned}{version}"
    groups = (argument for group in wanted.groups for argument in ("--group", _group(wanted, group)))
    actions.append(
        InstallAction(
            label="installing sdsetup and what it needs (the long step: about 1 GB the first time)",
            argv=(
                *pip,
                "install",
                "--progress-bar=off",
                "--constraint",
                str(known_good.CONSTRAINTS),
                *(("--editable",) if wanted.editable else ()),
                requirement,
                *groups,
            ),
        )
    )
    return actions


def _group(wanted: Wanted, group: str) -> str:
    return f"{Path(wanted.requirement) / 'pyproject.toml'}:{group}" if wanted.editable else group


def reinstall_flavour(python: str, flavour: Flavour) -> list[InstallAction]:
    """List what leaves exactly one ONNX Runtime, whole, in an environment."""
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--no-input")
    distribution = FLAVOUR_DISTRIBUTIONS[flavour]
    pins = known_good.versions()
    pinned = f"{distribution}=={pins[distribution]}" if distribution in pins else distribution
    return [
        InstallAction(
            label="removing every ONNX Runtime",
            argv=(*pip, "uninstall", "--yes", *FLAVOUR_DISTRIBUTIONS.values()),
        ),
        InstallAction(
            label=f"installing {pinned}",
            argv=(*pip, "install", "--progress-bar=off", "--constraint", str(known_good.CONSTRAINTS), pinned),
        ),
    ]


def reinstall(python: str, distributions: Sequence[str]) -> InstallAction:
    """Bring distributions to their known-good version, whole, whatever is there now."""
    pins = known_good.versions()
    pinned = [f"{name}=={pins[name]}" if name in pins else name for name in distributions]
    return InstallAction(
        label=f"installing {', '.join(pinned)}",
        argv=(
            *(python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"),
            *("--progress-bar=off", "--force-reinstall", "--no-deps"),
            *("--constraint", str(known_good.CONSTRAINTS), *pinned),
        ),
    )


def run(action: InstallAction, on_line: Callable[[str], None], log: Path | None = None) -> None:
    """Start an action and wait for it.

    Args:
        action: What to start.
        on_line: Is handed each line the program prints, without its end.
        log: A file to which the lines are appended.

    Raises:
        SetupError: The program is missing or failed; the message says why, as far as it can be told.
    """
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            action.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **action.variables},
        )
    except OSError as error:
        raise SetupError(
            "install.program",
            f"{action.argv[0]} could not be started: {error.strerror or error}.",
            "run `python -m sdsetup doctor` to see what is missing.",
        ) from error
    with process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                on_line(lines[-1])
        except BaseException:
            process.kill()
            raise
    if log is not None:
        record = (f"$ {' '.join(action.argv)}", *lines, f"exit status {process.returncode}", "")
        with log.open("a", encoding="utf-8") as file:
            file.write("\n".join(record))
    if process.returncode != 0:
        raise _failure(action, lines, log)


# What pip and venv say, and what it means to the person. First match wins.
_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    (
        r"No space left on device|Errno 28|WinError 112",
        "install.disk",
        "the disk is full",
        "free about 3 GB, then run the same command again; what is already there is kept.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SSLError",
        "install.tls",
        "the package index's certificate is not trusted here, as behind a proxy that opens TLS",
        "give pip your organisation's certificate: set PIP_CERT to its file, then run it again.",
    ),
    (
        r"ProxyError|Cannot connect to proxy|Tunnel connection failed",
        "install.proxy",
        "the proxy that is set (HTTPS_PROXY or pip's own setting) does not answer",
        "correct or unset HTTPS_PROXY, then run the same command again.",
    ),
    (
        r"NewConnectionError|NameResolution|failure in name|getaddrinfo failed|TimeoutError|unreachable",
        "install.network",
        "the package index cannot be reached",
        "check the network connection, then run the same command again; finished downloads are kept.",
    ),
    (
        r"ensurepip is not available|No module named ensurepip|No module named 'ensurepip'",
        "install.ensurepip",
        "this Python came without ensurepip, so it cannot make environments",
        "on Debian and Ubuntu: sudo apt install python3-venv. Then run the same command again.",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "install.no-wheel",
        "the package index has no {what} for this Python and machine",
        "use a 64-bit CPython 3.11, 3.12 or 3.13; `python -m sdsetup doctor` shows what this one is.",
    ),
    (
        r"Permission denied|Errno 13|WinError 5\b",
        "install.permission",
        "a file or folder may not be written",
        "close programs that use the environment, check who owns its folder, then run it again.",
    ),
)


def _failure(action: InstallAction, lines: Sequence[str], log: Path | None) -> SetupError:
    text = "\n".join(lines)
    where = f" Everything that was printed is in {log}." if log is not None else ""
    for pattern, code, cause, hint in _CAUSES:
        match = re.search(pattern, text)
        if match:
            return SetupError(code, f"{action.label}: {cause.format(**match.groupdict())}.{where}", hint)
    errors = [line for line in lines if line.lower().startswith("error")] or lines[-1:]
    said = " ".join(errors)[:500] or "it said nothing"
    return SetupError(
        "install.failed",
        f"{action.label} failed: {said}.{where}",
        "run `python -m sdsetup doctor`; if it finds nothing, report this with the log.",
    )

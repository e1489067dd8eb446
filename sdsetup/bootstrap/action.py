"""One program that an installation starts, and what its failure means to the person.

Standard library only. Every action is an argument list that is started directly; no shell ever sees it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdsetup.bootstrap import child_environment, socks_relay
from sdsetup.bootstrap.child_environment import PipSettings
from sdsetup.errors import SetupError


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


def run(action: InstallAction, on_line: Callable[[str], None], log: Path | None = None) -> None:
    """Start an action and wait for it.

    Args:
        action: What to start.
        on_line: Is handed each line the program prints, without its end.
        log: A file to which the lines are appended.

    Raises:
        SetupError: The program is missing or failed; the message says why, as far as it can be told.
    """
    is_pip = action.argv[1:3] == ("-m", "pip")
    settings = child_environment.pip_settings(action.argv[0]) if is_pip else child_environment.PipSettings()
    variables = child_environment.for_pip(settings) if is_pip else child_environment.for_python()
    with socks_relay.reachable(variables) as reaching:
        lines, status = _started(action, on_line, reaching)
    if log is not None:
        record = (f"$ {' '.join(action.argv)}", *lines, f"exit status {status}", "")
        with log.open("a", encoding="utf-8") as file:
            file.write("\n".join(record))
    if status != 0:
        raise _failure(action, lines, log, settings)


def _started(
    action: InstallAction, on_line: Callable[[str], None], variables: Mapping[str, str]
) -> tuple[list[str], int]:
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
            env={**variables, **action.variables},
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
    return lines, process.returncode


# Settings of pip's that are kept and may leave nothing to install.
_NARROWING = ("no-index", "constraint", "only-binary", "uploaded-prior-to")

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
        r"SOCKS proxy|Missing dependencies for SOCKS|socks\w*://",
        "install.proxy",
        "the SOCKS proxy that is set (ALL_PROXY or HTTPS_PROXY) does not let pip through",
        "see that the proxy runs and takes the user name and password in its address, then run it again.",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies|user requested \(constraint\)",
        "install.conflict",
        "the tested versions do not agree with what pip is told besides",
        "take away pip's own `constraint` setting (`python -m pip config list`), then run it again.",
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


def _failure(
    action: InstallAction, lines: Sequence[str], log: Path | None, settings: PipSettings
) -> SetupError:
    text = "\n".join(lines)
    where = f" Everything that was printed is in {log}." if log is not None else ""
    narrowing = [name for name in _NARROWING if name in settings.kept]
    if narrowing:
        where += f" pip is set to: {', '.join(f'{name} {settings.kept[name]}' for name in narrowing)}."
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

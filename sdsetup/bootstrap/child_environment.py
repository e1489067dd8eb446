"""The environment variables of the programs that sdsetup starts: nothing that redirects them.

pip takes options from variables and from files. Where packages come from and how they are reached is kept
(index, proxy, certificates); where they go and what is done with them is decided here.

Standard library only.
"""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from sdsetup.bootstrap.foreign_paths import RECORD
from sdsetup.errors import SetupError

# Source: docs.python.org, "Environment variables". Each changes what a Python imports or how it runs.
_OF_PYTHON = frozenset(
    {
        *("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE"),
        *("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONCASEOK"),
        *(
            "PYTHONBREAKPOINT",
            "PYTHONNODEBUGRANGES",
            "PYTHONDEBUG",
            "PYTHONVERBOSE",
            "PYTHONPROFILEIMPORTTIME",
        ),
        *("PYTHONSAFEPATH", "PYTHONPRESITE", "__PYVENV_LAUNCHER__"),
    }
)

# pip's options that say where packages come from and how they are reached.
_KEPT = frozenset(
    {
        *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host"),
        *("cert", "client-cert", "proxy", "timeout", "default-timeout", "retries", "resume-retries"),
        *("keyring-provider", "cache-dir", "no-cache-dir", "constraint", "build-constraint"),
        *("only-binary", "prefer-binary", "uploaded-prior-to", "use-feature", "use-deprecated"),
    }
)
# Options that change nothing but what is printed, asked or logged: left out without a word.
_QUIET = frozenset(
    {
        *("disable-pip-version-check", "no-input", "quiet", "verbose", "no-color", "progress-bar", "log"),
        *("no-python-version-warning", "root-user-action", "require-virtualenv", "break-system-packages"),
        *("debug", "exists-action", "compile", "no-compile", "no-warn-script-location", "no-clean", "format"),
        *("no-warn-conflicts", "yes"),
    }
)


@dataclass(frozen=True, kw_only=True)
class PipSettings:
    """What the person told pip, by variables and files.

    Attributes:
        kept: Options that are handed on, by name.
        left_out: Options that would redirect or change an installation, by name.
    """

    kept: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def for_python(root: str = "") -> dict[str, str]:
    """Give the variables for a Python that must see its own packages only.

    Args:
        root: A folder that holds this copy of the project, for a Python that has none; or empty.
    """
    variables = {name: value for name, value in os.environ.items() if name.upper() not in _OF_PYTHON}
    variables |= {"PYTHONNOUSERSITE": "1", "PYTHONIOENCODING": "utf-8"}
    if root:
        variables["PYTHONPATH"] = root
    return variables


def for_pip(settings: PipSettings) -> dict[str, str]:
    """Give the variables for pip: the settings that are kept, and no file of settings besides."""
    variables = {name: value for name, value in for_python().items() if not name.upper().startswith("PIP_")}
    variables.pop(RECORD, None)
    variables["PIP_CONFIG_FILE"] = os.devnull
    return variables | {
        f"PIP_{name.replace('-', '_').upper()}": value for name, value in settings.kept.items()
    }


def pip_settings(python: str) -> PipSettings:
    """Ask pip for its settings; a pip that does not start has none.

    Args:
        python: The Python whose pip is asked.

    Raises:
        SetupError: ``install.pip-settings``: a file of settings cannot be read.
    """
    variables = for_python()
    for name in ("PIP_PYTHON", "PIP_LOG", "PIP_VERBOSE", "PIP_QUIET", "PIP_ISOLATED"):
        variables.pop(name, None)
    variables["PIP_QUIET"] = "0"  # a file may say quiet, and then nothing is listed
    try:
        answer = subprocess.run(
            [python, "-m", "pip", "config", "list"],
            env=variables, capture_output=True, encoding="utf-8", errors="replace", timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return PipSettings()
    if answer.returncode != 0:
        said = " ".join(answer.stderr.split())
        if "onfiguration file" in said and "Traceback" not in said:
            raise SetupError(
                "install.pip-settings",
                f"pip cannot read its own settings: {said.removeprefix('ERROR: ')}.",
                "correct or remove that file, then run the same command again.",
            )
        return PipSettings()
    return understood(answer.stdout)


def understood(listed: str) -> PipSettings:
    """Sort the lines of ``pip config list``: later sections win, variables over files."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        key, _, written = line.partition("=")
        section, _, name = key.rpartition(".")
        try:
            value = str(ast.literal_eval(written))
        except (ValueError, SyntaxError):
            continue
        if section in sections and value.strip():
            sections[section][name.strip().lower().replace("_", "-")] = " ".join(value.split())
    merged = sections["global"] | sections["install"] | sections[":env:"]
    merged.pop("config-file", None)
    return PipSettings(
        kept={name: value for name, value in merged.items() if name in _KEPT},
        left_out={
            name: value
            for name, value in merged.items()
            if name not in _KEPT | _QUIET and value.lower() not in {"0", "no", "false", "off"}
        },
    )


def pip_works(python: str) -> bool:
    """Tell whether a Python's pip starts; a torn one imports and then fails."""
    try:
        answer = subprocess.run(
            [python, "-m", "pip", "--version"],
            env=for_pip(PipSettings()), capture_output=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.returncode == 0

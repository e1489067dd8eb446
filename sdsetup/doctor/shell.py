"""Commands as a person types them, in the shell they have, and sizes as a person reads them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from sdsetup.doctor.registry import CheckContext


def call(context: CheckContext, argv: Sequence[str]) -> str:
    """Write an argument list so that the person's shell runs just that."""
    shell = context.environment.shell
    if shell == "cmd":
        return subprocess.list2cmdline(argv)
    if shell == "powershell":
        quoted = [_powershell(argument) for argument in argv]
        return ("& " if quoted[0].startswith("'") else "") + " ".join(quoted)
    return shlex.join(argv)


def _powershell(argument: str) -> str:
    plain = argument.replace("-", "").replace("_", "").replace(".", "").replace("=", "").replace("\\", "")
    if plain.replace(":", "").replace("/", "").isalnum():
        return argument
    return "'" + argument.replace("'", "''") + "'"


def set_variable(context: CheckContext, name: str, value: str) -> str:
    """Set an environment variable for what is started from this shell."""
    match context.environment.shell:
        case "cmd":
            return f'set "{name}={value}"'
        case "powershell":
            return f"$env:{name} = '{value}'"
        case "fish":
            return f"set -gx {name} {shlex.quote(value)}"
        case _:
            return f"export {name}={shlex.quote(value)}"


def unset_variable(context: CheckContext, name: str) -> str:
    """Take an environment variable away from what is started from this shell."""
    match context.environment.shell:
        case "cmd":
            return f"set {name}="
        case "powershell":
            return f"Remove-Item Env:{name}"
        case "fish":
            return f"set -e {name}"
        case _:
            return f"unset {name}"


def python(context: CheckContext, *arguments: str) -> str:
    """Run the Python that is looked at."""
    known = context.environment.python
    return call(context, (known.executable if known and known.executable else "python", *arguments))


def sdsetup(context: CheckContext, *arguments: str) -> str:
    """Run sdsetup by the name under which it is found."""
    return call(context, (*context.environment.command, *arguments))


def size(count: int) -> str:
    """Write a number of bytes: ``"3.2 GB"``."""
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"


def memory(count: int) -> str:
    """Write a size of memory, which is sold in powers of two: ``"16.0 GiB"``."""
    return f"{count / 1024**3:.1f} GiB"

"""The command line before its packages exist: ``install`` gets them, ``doctor`` looks, the rest is told how.

Standard library only; what one case alone needs is imported there, since all commands start here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sdsetup import os_errors
from sdsetup.bootstrap import console, version
from sdsetup.bootstrap.command_name import typed, verb_of
from sdsetup.errors import SetupError, UsageError
from sdsetup.redaction import redact


def main(arguments: Sequence[str]) -> int:
    """Run a command line wherever it can run.

    Args:
        arguments: What follows the program's name.

    Returns:
        The exit status.
    """
    verb = verb_of(arguments)
    asks_help = "--help" in arguments or "-h" in arguments
    try:
        if version.asked(arguments):
            sys.stdout.write("\n".join(version.lines(verbose="--verbose" in arguments)) + "\n")
            return 0
        if verb == "install" and not asks_help:
            from sdsetup.bootstrap import install

            status = install.begin(arguments)
            if status is not None:
                return status
        elif verb == "uninstall" and set(arguments) <= {"uninstall", "--yes", "-y", "--dry-run"}:
            from sdsetup.bootstrap import uninstall

            return uninstall.run(
                yes="--yes" in arguments or "-y" in arguments, dry_run="--dry-run" in arguments
            )
        elif sys.prefix == sys.base_prefix:
            # Packages that this Python has of its own are for other programs.
            status = _in_environment(arguments, verb)
            if status is not None:
                return status
        return _with_packages(arguments, verb)
    except SetupError as error:
        console.complain(error)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        console.say(console.interrupted(arguments))
        return 130
    except (OSError, ImportError, MemoryError) as error:
        console.complain(_explained(error))
        return 1


def _explained(error: Exception) -> SetupError:
    """Say why the command line cannot start."""
    refused = os_errors.find(error)
    if refused is not None:
        return os_errors.explain(refused)
    return SetupError(
        "packages.broken",
        f"a Python package that is installed cannot be imported: {error}.",
        f"{typed()} doctor",
    )


def _with_packages(arguments: Sequence[str], verb: str) -> int:
    try:
        from sdsetup.cli.app import main as run

        return run(list(arguments))
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("sdsetup", "conversions"):
            return _without_packages(arguments, verb, missing.name or "")
        torn: Exception = missing
    except Exception as error:  # noqa: BLE001 - the command line explains its own; this is its packages failing
        torn = error
    if verb == "doctor":
        return _bare_doctor(arguments)
    console.say(
        f"error: a package that sdsetup needs does not work: {type(torn).__name__}: {redact(str(torn))}"
    )
    console.say(f"next: {typed()} doctor")
    return 1


def _bare_doctor(arguments: Sequence[str]) -> int:
    from sdsetup.bootstrap import doctor

    return doctor.main([argument for argument in arguments if argument != "doctor"])


def _in_environment(arguments: Sequence[str], verb: str) -> int | None:
    """Go on in sdsetup's own environment; None where there is none that could be used."""
    from sdsetup.bootstrap import environment_maker, handover, places

    environment = places.environment_folder()
    if places.inside(environment) or not environment.exists():
        return None
    wrong = environment_maker.fault(environment)
    if wrong is not None and verb not in {"doctor", ""}:
        raise wrong
    if wrong is None and environment_maker.state(environment) in {"ready", "unfinished"}:
        return handover.go_on(places.python_of(environment), ["-m", "sdsetup", *arguments])
    return None


def _without_packages(arguments: Sequence[str], verb: str, missing: str) -> int:
    # Whoever starts the doctor in a virtual environment of their own wants that one looked at.
    asks_help = not verb or "--help" in arguments or "-h" in arguments
    if verb == "doctor" and not asks_help:
        return _bare_doctor(arguments)
    status = _in_environment(arguments, verb)
    if status is not None:
        return status
    if asks_help:
        from sdsetup.bootstrap import help_page

        if text := help_page.of(verb):
            sys.stdout.write(f"{text}\n")
            return 0
        if verb == "doctor":
            return _bare_doctor(arguments)
    console.say(f"error: `{verb or 'sdsetup'}` needs the Python package {missing}, which is not installed.")
    console.say(f"next: {typed()} install")
    return 1

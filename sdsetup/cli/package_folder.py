"""A package named on the command line as its model is: what to type instead."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path

from sdsetup.bootstrap.command_name import quoted
from sdsetup.errors import SetupError, UsageError

# owner/name, with a revision perhaps, or a model's page; what is on this machine begins with a dot, ~ or /.
_MODEL = re.compile(r"(?:https?:/+[^/]+/)?([A-Za-z0-9][\w.-]*/[\w.-]+?)(?:@[\w./-]+)?/?")
_PACKAGES = Path("packages")


def demand(package: Path, verb: str, prompt: str = "") -> None:
    """Stop where something else is named than a package, and say what was meant.

    That is a file, a folder of packages, a name that is nearly a package's, a model of the Hub, the demo, or
    the prompt before the package.

    Args:
        package: What was typed where a package's folder is wanted.
        verb: The command that wants it.
        prompt: What was typed after it.

    Raises:
        ConversionError: ``package.is_file``.
        SetupError: ``package.of_model``, which names the package made of that model, or how to make one;
            ``package.swapped``, ``package.folder_of_packages`` or ``package.mistyped``.
    """
    _demand_order(package, verb, prompt)
    _demand_one(package, verb, prompt)
    if package.is_file():
        from conversions.package.layout import open_package

        open_package(package)  # which says so
    typed = package.as_posix()
    found = _MODEL.fullmatch(typed)
    if package.exists():
        return
    if not (found or typed == "demo"):
        _suggest_near(package, verb, prompt)
        return
    if found and not typed.startswith("http") and (package.parent == _PACKAGES or package.parent.is_dir()):
        _suggest_near(package, verb, prompt)
        return
    model = found[1] if found else typed
    made = _made_of(model)
    if made:
        raise SetupError(
            "package.of_model",
            f"{typed} names a model where a package is wanted; {_listed(made)} here.",
            f"name the package: {command(verb, made[0], prompt)}",
        )
    raise SetupError(
        "package.of_model",
        f"there is no package at {typed}: as a model of the Hub it has to be converted first.",
        f"sdsetup convert {model}",
    )


def _demand_order(package: Path, verb: str, prompt: str) -> None:
    if not prompt or not _is_package(prompt) or _is_package(str(package)):
        return
    raise UsageError(
        "package.swapped",
        f"{verb} takes the package first, then the prompt.",
        command(verb, Path(prompt), str(package)),
    )


def _demand_one(package: Path, verb: str, prompt: str) -> None:
    if not package.is_dir() or _is_package(str(package)):
        return
    made = _packages_in(package)
    if made:
        raise SetupError(
            "package.folder_of_packages",
            f"{package} is a folder of packages: {', '.join(path.name for path in made)}.",
            f"name one of them: {command(verb, made[0], prompt)}",
        )


def _suggest_near(package: Path, verb: str, prompt: str) -> None:
    made = {path.name: path for place in (package.parent, _PACKAGES) for path in _packages_in(place)}
    near = difflib.get_close_matches(package.name, made, n=1)
    if near:
        raise SetupError(
            "package.mistyped",
            f"there is no package at {package}; {made[near[0]].as_posix()} is here.",
            f"name the package: {command(verb, made[near[0]], prompt)}",
        )


def _packages_in(folder: Path) -> list[Path]:
    return [path.parent for path in sorted(folder.glob("*/manifest.json"))]


def _is_package(typed: str) -> bool:
    try:
        return (Path(typed) / "manifest.json").is_file()
    except (OSError, ValueError):  # a long prompt is no path
        return False


def incomplete(package: Path | None) -> UsageError:
    """Say what is typed to make an image, with what was typed already.

    Args:
        package: What was typed as the only argument: a prompt where it has several words and no such folder
            is there, else a package.
    """
    place, prompt, hint = example(), "a lighthouse at dawn", "for example: "
    if package is not None and (
        " " not in str(package) or os.path.exists(package)  # noqa: PTH110 - a long prompt is no error
    ):
        place = package
    elif package is not None:
        prompt, hint = package.as_posix(), ""
    hint += command("generate", place, prompt)
    return UsageError("generate.arguments", "generate needs a package and a prompt.", hint)


def command(verb: str, package: Path, prompt: str = "") -> str:
    """Write a command as it is typed; a prompt with marks that shells read is left to be typed again."""
    if any(mark in prompt for mark in "$`\\!%") or ('"' in prompt and "'" in prompt):
        prompt = "PROMPT"
    quotes = "'" if '"' in prompt else '"'
    words = (quoted(package.as_posix()), f"{quotes}{prompt}{quotes}" if prompt else "")
    return " ".join(filter(None, ("sdsetup", verb, *words)))


def example() -> Path:
    """Name the newest package of the usual folder; ``PACKAGE`` where there is none."""
    made = sorted(_PACKAGES.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    return made[-1].parent if made else Path("PACKAGE")


def _made_of(model: str) -> list[Path]:
    """Find packages in their usual folder that were made of a model, or are named after it."""
    name = model.rpartition("/")[2]
    packages = _packages_in(_PACKAGES)
    origins = {path: _origin(path) for path in packages}
    exact = [path for path, origin in origins.items() if origin.casefold() == model.casefold()]
    named = [path for path in packages if re.fullmatch(rf"{re.escape(name)}-\w+-\w+", path.name)]
    return exact or named


def _origin(package: Path) -> str:
    try:
        document = json.loads((package / "manifest.json").read_text("utf-8"))
        return str(document["checkpoint"]["origin"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _listed(packages: list[Path]) -> str:
    names = ", ".join(path.as_posix() for path in packages)
    return f"{names} {'is' if len(packages) == 1 else 'are'}"

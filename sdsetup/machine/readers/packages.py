"""What is installed for this Python: versions, what is torn, and what is missing of all that is needed."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from sdsetup.bootstrap import integrity, known_good, places
from sdsetup.bootstrap.installer import FLAVOUR_DISTRIBUTIONS
from sdsetup.machine.facts import Packages, Questions

CONVERT = "convert"


def read(_questions: Questions) -> Packages:
    """List the distributions, then walk what sdsetup requires, what that requires, and so on."""
    versions: dict[str, str] = {}
    torn: dict[str, str] = {}
    for place in map(Path, dict.fromkeys(sys.path)):
        infos = integrity.installed(place)
        broken = integrity.torn(place) if infos else {}
        for name, folders in infos.items():
            if name in versions:  # the first on the path is the one that is imported
                continue
            versions[name] = integrity.version(folders[0])
            if name in broken:
                torn[name] = broken[name]
    flavours = [name for name in FLAVOUR_DISTRIBUTIONS.values() if name in versions]
    roots = _requirements("")
    core = _Walk(versions)
    core.follow([*roots, *flavours], "sdsetup")
    whole = _Walk(versions)
    whole.follow([*roots, *flavours, *_requirements(CONVERT)], "sdsetup")
    needed = frozenset(core.seen)
    return Packages(
        versions=versions,
        torn={name: what for name, what in torn.items() if name in whole.seen or name == "pip"},
        missing=whole.missing,
        extras=whole.extras,
        unfit=whole.unfit,
        core=needed,
    )


def _requirements(extra: str) -> list[str]:
    """List what the project requires, as pip would read it; of an extra, only what it adds."""
    source = places.checkout()
    if source is not None:
        project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
        return [str(line) for line in lines]
    try:
        listed = metadata.requires("sdsetup") or []
    except metadata.PackageNotFoundError:
        return []
    marked = re.compile(r"""\s*;.*extra\s*==\s*["'](?P<extra>[^"']+)["'].*$""")
    found = [(marked.sub("", line), marked.search(line)) for line in listed]
    return [line for line, mark in found if (mark["extra"] if mark else "") == extra]


class _Walk:
    """Follows requirements from distribution to distribution; markers are evaluated for this Python."""

    def __init__(self, versions: Mapping[str, str]) -> None:
        self._versions = versions
        self._read = _reader()
        self._followed: set[tuple[str, str]] = set()
        self.seen: dict[str, None] = {}
        self.missing: dict[str, str] = {}
        self.extras: dict[str, str] = {}
        self.unfit: dict[str, str] = {}

    def follow(self, lines: Sequence[str], wanted_by: str, extra: str = "") -> None:
        """Follow requirement lines.

        Args:
            lines: As in a distribution's metadata.
            wanted_by: Whose they are.
            extra: The extra of that distribution which is asked for.
        """
        for line in lines:
            for name, extras, allows in self._read(line, extra):
                self.seen[name] = None
                if name not in self._versions:
                    self.missing.setdefault(name, wanted_by)
                    if extras:
                        self.extras[name] = ",".join(extras)
                    continue
                if not allows(self._versions[name]):
                    self.unfit.setdefault(name, f"{self._versions[name]}, and {wanted_by} wants {line}")
                for each in ("", *extras):
                    if (name, each) not in self._followed:
                        self._followed.add((name, each))
                        self.follow(_required_by(name), name, each)


def _required_by(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return []


def _reader() -> Any:
    """Give the parser of requirements: packaging's, else the copy in pip, else one for names alone."""
    for place in ("packaging.requirements", "pip._vendor.packaging.requirements"):
        try:
            requirements: Any = import_module(place)
            break
        except ImportError:
            continue
    else:
        return _names_alone

    def parse(line: str, extra: str) -> Iterator[tuple[str, tuple[str, ...], Any]]:
        try:
            found = requirements.Requirement(line)
        except requirements.InvalidRequirement:
            return
        if found.marker is not None and not found.marker.evaluate({"extra": extra}):
            return
        if extra and (found.marker is None or found.marker.evaluate({"extra": ""})):
            return  # what the distribution needs without the extra was followed before
        allows = lambda version: found.specifier.contains(version, prereleases=True)  # noqa: E731
        yield known_good.normalized(found.name), tuple(sorted(found.extras)), allows

    return parse


def _names_alone(line: str, extra: str) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    found = re.match(r"(?P<name>[\w.-]+)\s*(?:\[(?P<extras>[^\]]*)\])?", line.strip())
    if found is not None and not extra and ";" not in line:
        extras = tuple(each.strip() for each in (found["extras"] or "").split(",") if each.strip())
        yield known_good.normalized(found["name"]), extras, lambda _version: True

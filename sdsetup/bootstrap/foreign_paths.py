"""Keep other programs' packages out of this process and of those that it starts.

``PYTHONPATH`` comes before an environment's own packages: a typer, numpy or onnxruntime of another program
would be imported in place of sdsetup's. What such folders add is taken off the search path; a folder that
hides nothing stays.

Standard library only, and little of it: this runs before anything is imported that could be hidden.
"""

import os
import sys

# For the processes started from this one, whose PYTHONPATH is clean: the doctor names what was left out.
RECORD = "SDSETUP_LEFT_OUT_OF_PYTHONPATH"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
_PINS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "known_good", "constraints.txt")  # noqa: PTH100, PTH118, PTH120
# Where a distribution's name is not the name that is imported.
_IMPORTED_AS = {"pillow": "pil", "protobuf": "google", "pyyaml": "yaml"}


def leave_out() -> None:
    """Take folders that hide sdsetup's packages off ``sys.path`` and out of ``PYTHONPATH``."""
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if sys.flags.ignore_environment:
        given = []
    started_in = [] if sys.flags.safe_path else sys.path[:1]
    suspects = [entry for entry in dict.fromkeys([*given, *started_in]) if not _is_own(entry)]
    if not suspects:
        return
    names = _names()
    foreign = [entry for entry in suspects if hides(entry, names)]
    if not foreign:
        return
    out = {_absolute(entry) for entry in foreign}
    sys.path[:] = [entry for entry in sys.path if _absolute(entry) not in out]
    for entry in foreign:
        sys.path_importer_cache.pop(entry, None)
    kept = [entry for entry in given if entry not in foreign]
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    else:
        os.environ.pop("PYTHONPATH", None)
    named = [entry for entry in foreign if entry in given]
    if named:
        os.environ[RECORD] = os.pathsep.join(named)


def hides(folder: str, names: set[str]) -> list[str]:
    """List what a folder holds under names that belong to the standard library or to sdsetup's packages.

    Args:
        folder: An entry of the search path; an empty one is the working folder.
        names: Lower-case names.
    """
    try:
        files = os.listdir(folder or os.curdir)  # noqa: PTH208
    except OSError:
        return []
    found = []
    for file in files:
        name, dot, ending = file.partition(".")
        is_module = dot and ending.rpartition(".")[2] in ("py", "pyc", "so", "pyd")
        # A folder without __init__ gives way to any package of its name further on.
        is_package = not dot and os.path.isfile(os.path.join(folder, file, "__init__.py"))  # noqa: PTH113, PTH118
        if name.lower() in names and (is_module or is_package):
            found.append(name)
    return sorted(found)


def left_out() -> dict[str, list[str]]:
    """List the folders of ``PYTHONPATH`` that were left out, each with what it hides."""
    entries = [entry for entry in os.environ.get(RECORD, "").split(os.pathsep) if entry]
    names = _names() if entries else set()
    return {entry: hides(entry, names) for entry in entries}


def _names() -> set[str]:
    names = {name.lower() for name in sys.stdlib_module_names}
    names |= {"onnxruntime", "sdsetup", "conversions"}
    with open(_PINS, encoding="utf-8") as file:  # noqa: PTH123
        for line in file:
            name, pinned, _ = line.partition("==")
            if pinned:
                name = name.strip().lower().replace("-", "_")
                names.add(_IMPORTED_AS.get(name, name))
    return names


def _is_own(entry: str) -> bool:
    return _absolute(entry) == _absolute(ROOT)


def _absolute(entry: str) -> str:
    return os.path.normcase(os.path.realpath(entry or os.curdir))

"""``python -m sdsetup``: works on a bare Python, before anything is installed.

Standard library only, in a syntax that older Pythons can read far enough to be told what is missing.
"""

import sys

_OLDEST, _NEWEST = (3, 11), (3, 13)


def main() -> int:
    """Run the command line; without its packages, get them or say how."""
    _open_closed_streams()
    if sys.version_info[:2] < _OLDEST:
        return _wrong_python()
    if sys.version_info[:2] > _NEWEST and sys.argv[1:2] != ["doctor"]:  # the doctor can tell more
        return _wrong_python()
    try:
        from sdsetup.bootstrap import foreign_paths

        foreign_paths.leave_out()
        from sdsetup.bootstrap import cli
        from sdsetup.redaction import redacting_streams

        with redacting_streams():
            return cli.main(sys.argv[1:])
    except KeyboardInterrupt:  # while the above is imported
        sys.stderr.write("Interrupted. Run the same command to start again.\n")
        return 130


def _open_closed_streams() -> None:
    """Let streams that the caller closed take everything: Python has None in their place."""
    import os

    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open to the end


def _wrong_python() -> int:
    import shutil
    import subprocess

    sys.stderr.write(
        "error: sdsetup needs CPython 3.11, 3.12 or 3.13; this one is %d.%d.\n" % sys.version_info[:2]
    )
    candidates = [["py", "-3.%d" % minor] for minor in (12, 13, 11)] if sys.platform == "win32" else []
    candidates += [["python3.%d" % minor] for minor in (12, 13, 11)]
    for candidate in candidates:
        try:
            works = shutil.which(candidate[0]) and not subprocess.call(
                candidate + ["-c", "pass"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError:
            works = False
        if works:
            sys.stderr.write("next: %s -m sdsetup %s\n" % (" ".join(candidate), _arguments()))
            return 1
    sys.stderr.write("next: install Python 3.12 from https://www.python.org/downloads/ and use that one.\n")
    return 1


def _arguments() -> str:
    try:
        from sdsetup.redaction import redact
    except Exception:  # noqa: BLE001 - too old a Python to hide what must not be shown
        return ""
    return redact(" ".join(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())

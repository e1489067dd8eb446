"""Checks of the interpreter, its pip and its environment."""

from __future__ import annotations

from sdsetup.bootstrap.installer import InstallAction
from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.registry import CheckContext, check

_DOWNLOADS = "https://www.python.org/downloads/"


@check(
    "python.version",
    "Python version",
    why="torch, onnx and ONNX Runtime publish ready-made wheels for CPython 3.11 to 3.13 only.",
    reads="python",
)
def version(context: CheckContext) -> Verdict:
    """Compare the interpreter with the wheels that exist."""
    python = context.python
    seen = f"{python.implementation} {'.'.join(map(str, python.version))}"
    if python.implementation != "CPython":
        return failure(f"{seen} is not CPython", Fix(says=f"Install CPython 3.12 from {_DOWNLOADS}"))
    if python.free_threaded:
        return failure(
            f"{seen} is the free-threaded build, which ONNX Runtime has no wheels for",
            Fix(says=f"Install the ordinary CPython 3.12 from {_DOWNLOADS}"),
        )
    if not (3, 11) <= python.version[:2] <= (3, 13):
        return failure(f"{seen} is outside 3.11 to 3.13", Fix(says=f"Install CPython 3.12 from {_DOWNLOADS}"))
    return ok(seen)


@check(
    "python.bits",
    "Python for 64 bits",
    why="A 32-bit process can hold 2 to 4 GB, and none of the needed wheels exists for it.",
    reads="python machine",
)
def bits(context: CheckContext) -> Verdict:
    """Compare bitness and processor with the wheels that exist."""
    python, machine = context.python, context.machine
    if python.bits != 64:
        return failure(
            f"this Python is built for {python.bits} bits",
            Fix(says=f"Install the 64-bit CPython 3.12 from {_DOWNLOADS}"),
        )
    if machine.platform == "win32" and machine.architecture.upper() in {"ARM64", "AARCH64"}:
        return failure(
            "this Python is built for ARM64, and onnxruntime-directml exists for x64 only",
            Fix(says=f"Install the x64 CPython 3.12 from {_DOWNLOADS}; Windows on ARM runs it by emulation"),
        )
    return ok(f"64 bits on {machine.architecture or 'an unnamed processor'}")


@check(
    "python.store",
    "Where Python comes from",
    why="The Microsoft Store's Python redirects writes into a private folder, so caches and paths differ.",
    reads="python machine",
)
def store(context: CheckContext) -> Verdict:
    """Find the Microsoft Store's Python."""
    if context.machine.platform != "win32":
        return skipped("only Windows has a Python from the Microsoft Store")
    if context.python.store:
        return warning(
            f"{context.python.executable} is the Microsoft Store's",
            Fix(
                says="Install CPython from python.org and use that one",
                commands=("winget install --exact --id Python.Python.3.12",),
            ),
        )
    return ok(context.python.executable)


@check(
    "python.environment",
    "Virtual environment",
    why="sdsetup's versions must not fight with those of other programs, so it keeps them apart.",
    reads="python",
)
def environment(context: CheckContext) -> Verdict:
    """CheckContext at the running environment and at the one that sdsetup keeps."""
    python = context.python
    if python.environment_state == "broken":
        return failure(
            f"{python.environment} is there, but its Python is gone; the Python it was made from was removed",
            Fix(says="Make it anew", commands=(shell.sdsetup(context, "install"),)),
        )
    if python.in_environment:
        return ok(f"this Python is in one: {python.executable}")
    if python.environment_state == "unfinished":
        return warning(
            f"{python.environment} is there but not finished",
            Fix(says="Finish it", commands=(shell.sdsetup(context, "install"),)),
        )
    if python.environment_state == "ready":
        return ok(f"sdsetup's own is ready: {python.environment}")
    return warning(
        "this Python is in none, and sdsetup's own is not made yet",
        Fix(says="Let sdsetup make it", commands=(shell.sdsetup(context, "install"),)),
    )


@check(
    "python.pip",
    "pip",
    why="Everything that is installed or repaired is installed by pip.",
    reads="python",
)
def pip(context: CheckContext) -> Verdict:
    """See whether pip starts."""
    python = context.python
    if python.pip:
        return ok(f"pip {python.pip}")
    if not python.has_ensurepip:
        return failure(
            f"pip does not start: {python.pip_error}; and ensurepip, which could bring it, is missing too",
            Fix(
                says="Install both from the system's packages",
                commands=("sudo apt install python3-pip python3-venv",),
            ),
        )
    argv = (python.executable, "-m", "ensurepip", "--upgrade", "--default-pip")
    return failure(
        f"pip does not start: {python.pip_error}",
        Fix(
            says="Bring pip back from the copy that Python carries",
            commands=(shell.call(context, argv),),
            # A torn pip still looks installed, and ensurepip then leaves it alone: it goes first.
            actions=(
                InstallAction(
                    label="removing what is left of pip",
                    argv=(python.executable, "-c", _REMOVE_PIP),
                ),
                InstallAction(label="adding pip", argv=argv),
            ),
        ),
    )


_REMOVE_PIP = (
    "import glob, os, shutil, sysconfig\n"
    "place = sysconfig.get_path('purelib')\n"
    "for left in ('pip', 'pip-*.dist-info'):\n"
    "    for folder in glob.glob(os.path.join(glob.escape(place), left)):\n"
    "        shutil.rmtree(folder, ignore_errors=True)\n"
)

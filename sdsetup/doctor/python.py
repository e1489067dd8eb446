"""Checks of the interpreter, its pip and its environment."""

from __future__ import annotations

from sdsetup.bootstrap import installer
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
    """Look at the running environment and at the one that sdsetup keeps."""
    python = context.python
    if python.environment_fault and not python.in_environment:
        return failure(python.environment_fault, Fix(says=_sentence(python.environment_advice)))
    if python.environment_state == "unusable" and not python.in_environment:
        return failure(
            f"{python.environment} was made by sdsetup, but its Python does not fit any more",
            Fix(says="Make it anew", commands=(shell.sdsetup(context, "install"),)),
        )
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


def _sentence(advice: str) -> str:
    return advice[:1].upper() + advice[1:].rstrip(".")


@check(
    "python.search-path",
    "Other programs' packages",
    why="PYTHONPATH comes before an environment's own packages and hides those of the same name.",
    reads="python",
)
def search_path(context: CheckContext) -> Verdict:
    """Name the folders of PYTHONPATH that were left out."""
    found = context.python.left_out_paths
    if not found:
        return ok("PYTHONPATH hides none of sdsetup's")
    seen = "; ".join(f"{folder} holds {', '.join(list(names)[:5])}" for folder, names in found.items())
    return warning(
        f"PYTHONPATH: {seen}; sdsetup leaves it out, your own scripts would import that",
        Fix(
            says="Unset it for programs that it is not meant for",
            commands=(shell.unset_variable(context, "PYTHONPATH"),),
        ),
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
            actions=tuple(installer.restore_pip(python.executable)),
        ),
    )


@check(
    "python.pip-settings",
    "pip's settings",
    why="A setting that sends packages elsewhere would leave the environment empty.",
    reads="python",
)
def pip_settings(context: CheckContext) -> Verdict:
    """Name the settings that sdsetup leaves out when it starts pip, and those that it keeps."""
    python = context.python
    if python.pip_settings_error:
        return failure(python.pip_settings_error, Fix(says="Correct or remove that file"))
    kept = ", ".join(sorted(set(python.pip_kept) & _WHENCE)) or "none about where packages come from"
    if python.pip_left_out:
        return ok(f"left out by sdsetup: {', '.join(sorted(python.pip_left_out))}; kept: {kept}")
    return ok(f"kept: {kept}")


_WHENCE = {
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "cert"),
    *("client-cert", "constraint", "only-binary"),
}

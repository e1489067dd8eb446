"""Checks of what is installed for this Python."""

from __future__ import annotations

from sdsetup.bootstrap import installer, known_good
from sdsetup.bootstrap.installer import FLAVOUR_DISTRIBUTIONS
from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.registry import CheckContext, check

_CORE = (
    "typer",
    "rich",
    "huggingface-hub",
    "numpy",
    "safetensors",
    "onnx",
    "onnx-ir",
    "psutil",
    "platformdirs",
)
_CORE_MORE = ("pillow", "tokenizers")
_CONVERT = ("torch", "diffusers", "transformers", "onnxscript")


def _pins(context: CheckContext) -> dict[str, str]:
    return known_good.versions(context.machine.platform)


def _install(context: CheckContext, says: str, names: list[str]) -> Fix:
    if not context.python.in_environment:
        # Nothing is put into a Python that belongs to the whole machine.
        return Fix(
            says="Install sdsetup into its own environment", commands=(shell.sdsetup(context, "install"),)
        )
    action = installer.reinstall(context.python.executable, names)
    return Fix(says=says, commands=(shell.call(context, action.argv),), actions=(action,))


@check(
    "packages.core",
    "Packages of sdsetup",
    why="Without them only `install` and this doctor run.",
    reads="packages python machine",
)
def core(context: CheckContext) -> Verdict:
    """See whether everything that sdsetup always needs is installed."""
    wanted = (*_CORE, *_CORE_MORE)
    missing = [name for name in wanted if name not in context.packages.versions]
    if not missing:
        return ok(f"all {len(wanted)} are installed")
    return failure(f"missing: {', '.join(missing)}", _install(context, "Install what is missing", missing))


@check(
    "packages.convert",
    "Packages for converting",
    why="Tracing a new architecture and checking parity run PyTorch and diffusers.",
    reads="packages python machine",
    kinds=frozenset({"anything", "convert"}),
)
def convert(context: CheckContext) -> Verdict:
    """See whether what conversion needs is installed."""
    missing = [name for name in _CONVERT if name not in context.packages.versions]
    if not missing:
        return ok(", ".join(f"{name} {context.packages.versions[name]}" for name in _CONVERT))
    fix = Fix(says="Install everything", commands=(shell.sdsetup(context, "install"),))
    found = f"missing: {', '.join(missing)}"
    return failure(found, fix) if context.purpose.kind == "convert" else warning(found, fix)


@check(
    "packages.known-good",
    "Tested versions",
    why="Exporters and runtimes break one another between versions; the known-good set was tested together.",
    reads="packages python machine",
)
def tested(context: CheckContext) -> Verdict:
    """Compare the installed versions with the known-good set."""
    pins, have = _pins(context), context.packages.versions
    judged = (*_CORE, *_CORE_MORE, *_CONVERT, *FLAVOUR_DISTRIBUTIONS.values())
    present = [name for name in judged if name in have]
    if not present:
        return skipped("none of them is installed")
    other = [name for name in present if name in pins and have[name].partition("+")[0] != pins[name]]
    if not other:
        return ok(f"all {len(present)} that are installed are the tested versions")
    seen = ", ".join(f"{name} {have[name]} (tested: {pins[name]})" for name in other)
    return warning(seen, _install(context, "Install the tested versions", other))


@check(
    "packages.whole",
    "Whole packages",
    why="A cut-off installation or an over-eager cleaner leaves packages that import and then fail.",
    reads="packages python machine",
)
def whole(context: CheckContext) -> Verdict:
    """Compare the files of the important packages with their own lists."""
    torn = context.packages.torn
    if not torn:
        return ok("every file of the important packages is there, none is cut short")
    seen = "; ".join(f"{name}: {what}" for name, what in torn.items())
    return failure(seen, _install(context, "Install them again", sorted(torn)))

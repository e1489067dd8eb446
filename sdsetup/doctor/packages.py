"""Checks of what is installed for this Python."""

from __future__ import annotations

from collections.abc import Mapping

from sdsetup.bootstrap import installer, known_good
from sdsetup.bootstrap.installer import FLAVOUR_DISTRIBUTIONS
from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.registry import WITH_PACKAGES, CheckContext, check

_CONVERT = ("torch", "diffusers", "transformers", "onnxscript")


def _install(context: CheckContext, says: str, names: Mapping[str, str] | list[str], finding: str) -> Fix:
    if not context.python.in_environment:
        # Nothing is put into a Python that belongs to the whole machine.
        return Fix(
            says="Install sdsetup into its own environment", commands=(shell.sdsetup(context, "install"),)
        )
    extras = context.packages.extras
    spelled = [f"{name}[{extras[name]}]" if name in extras else name for name in names]
    action = installer.mend(context.python.executable, spelled)
    command = shell.python(context, "-m", "sdsetup", "doctor", "--fix", "--yes", "--only", finding)
    return Fix(says=says, commands=(command,), actions=(action,))


def _matters(context: CheckContext, name: str) -> bool:
    """Whether the purpose needs a distribution; images and installing do without PyTorch."""
    return context.purpose.kind in {"anything", "convert"} or name in context.packages.core


@check(
    "packages.core",
    "Packages of sdsetup",
    why="Without them only `install` and this doctor run.",
    reads="packages python",
    kinds=WITH_PACKAGES,
)
def core(context: CheckContext) -> Verdict:
    """See whether everything that sdsetup always needs is installed, down to the last dependency."""
    packages = context.packages
    missing = {name: needed_by for name, needed_by in packages.missing.items() if name in packages.core}
    if not missing:
        return ok(f"all {len(packages.core)} are installed")
    seen = ", ".join(name if by == "sdsetup" else f"{name} (for {by})" for name, by in missing.items())
    return failure(f"missing: {seen}", _install(context, "Install what is missing", missing, "packages.core"))


@check(
    "packages.convert",
    "Packages for converting",
    why="Tracing a new architecture and checking parity run PyTorch and diffusers.",
    reads="packages python",
    kinds=frozenset({"anything", "convert"}),
)
def convert(context: CheckContext) -> Verdict:
    """See whether what conversion needs is installed, down to the last dependency."""
    packages = context.packages
    missing = {name: needed_by for name, needed_by in packages.missing.items() if name not in packages.core}
    if not missing:
        return ok(", ".join(f"{name} {packages.versions.get(name, '')}" for name in _CONVERT))
    seen = ", ".join(name if by == "sdsetup" else f"{name} (for {by})" for name, by in missing.items())
    # All of them left out is a lean environment; some of them missing is a torn one.
    if set(missing) >= set(_CONVERT):
        return warning(
            f"left out: {', '.join(_CONVERT)}; known architectures convert without them, and are compared "
            "with a float32 evaluation instead of PyTorch",
            Fix(says="Install them too", commands=(shell.sdsetup(context, "install", "--torch"),)),
        )
    return failure(
        f"missing: {seen}", _install(context, "Install what is missing", missing, "packages.convert")
    )


@check(
    "packages.known-good",
    "Tested versions",
    why="Exporters and runtimes break one another between versions; the known-good set was tested together.",
    reads="packages python machine",
    kinds=WITH_PACKAGES,
)
def tested(context: CheckContext) -> Verdict:
    """Compare the installed versions with the known-good set, and with what they demand of each other."""
    pins, have = known_good.versions(context.machine.platform), context.packages.versions
    judged = {*context.packages.core, *_CONVERT, *FLAVOUR_DISTRIBUTIONS.values()}
    present = sorted(name for name in judged if name in have)
    if not present:
        return skipped("none of them is installed")
    unfit = {name: what for name, what in context.packages.unfit.items() if _matters(context, name)}
    if unfit:
        seen = "; ".join(f"{name} is {what}" for name, what in unfit.items())
        return failure(seen, _install(context, "Install the tested versions", unfit, "packages.known-good"))
    other = [name for name in present if name in pins and have[name].partition("+")[0] != pins[name]]
    if not other:
        return ok(f"all {len(present)} that are installed are the tested versions")
    seen = ", ".join(f"{name} {have[name]} (tested: {pins[name]})" for name in other)
    return warning(seen, _install(context, "Install the tested versions", other, "packages.known-good"))


@check(
    "packages.whole",
    "Whole packages",
    why="A cut-off installation or an over-eager cleaner leaves packages that import and then fail.",
    reads="packages python",
    kinds=WITH_PACKAGES,
)
def whole(context: CheckContext) -> Verdict:
    """Compare the files of all packages that sdsetup needs with the packages' own lists."""
    torn = {name: what for name, what in context.packages.torn.items() if _matters(context, name)}
    if not torn:
        return ok("every file of the packages is there as it was installed")
    seen = "; ".join(f"{name}: {what}" for name, what in torn.items())
    return failure(seen, _install(context, "Install them again", torn, "packages.whole"))


@check(
    "packages.imports",
    "Packages start",
    why="A package may be there, whole, and still not work: a system library or another package stops it.",
    reads="imports packages python",
    kinds=WITH_PACKAGES,
)
def imports(context: CheckContext) -> Verdict:
    """Say what could not be imported, in a process of its own."""
    failed = context.imports.failed
    if not failed:
        return ok(f"{context.imports.tried} modules were imported in a process of its own")
    seen = "; ".join(f"{name.partition(':')[0]}: {error}" for name, error in list(failed.items())[:4])
    seen += f"; and {len(failed) - 4} more" if len(failed) > 4 else ""
    if any(name in context.packages.core for name in context.packages.missing) or context.packages.torn:
        again = shell.sdsetup(context, "doctor")
        return failure(
            seen, Fix(says="Repair what is missing or torn first, then look again", commands=(again,))
        )
    own = sorted({name.partition(".")[0] for name in failed} & {"sdsetup", "conversions"})
    if own and len(own) == len({name.partition(".")[0] for name in failed}):
        return failure(
            seen,
            Fix(says="This copy of sdsetup is torn or was changed: get it anew", commands=("git status",)),
        )
    names = sorted({name for name in map(_distribution, failed) if name in context.packages.versions})
    if names:
        return failure(seen, _install(context, "Install them again", names, "packages.imports"))
    return failure(seen, Fix(says="Install everything", commands=(shell.sdsetup(context, "install"),)))


def _distribution(module: str) -> str:
    top = module.partition(":")[0].partition(".")[0]
    return {"PIL": "pillow"}.get(top, known_good.normalized(top))

"""Checks of ONNX Runtime: what is installed, what it lists, and what really runs."""

from __future__ import annotations

from sdsetup.bootstrap import installer
from sdsetup.bootstrap.installer import FLAVOUR_DISTRIBUTIONS, FLAVOURS, Flavour
from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.registry import WITH_PACKAGES, CheckContext, check
from sdsetup.machine.facts import ProviderTrial

# Windows' own DirectML.dll is older than what ONNX Runtime was built with; the wheel brings 1.15.
_DIRECTML = (1, 15)
_LISTED_ONLY = {"AzureExecutionProvider"}


def _installed(context: CheckContext) -> list[Flavour]:
    return [flavour for flavour in FLAVOURS if FLAVOUR_DISTRIBUTIONS[flavour] in context.packages.versions]


def _reinstall(context: CheckContext, says: str, flavour: Flavour | None = None) -> Fix:
    if not _installed(context) and not context.python.in_environment:
        # Nothing is put into a Python that belongs to the whole machine.
        return Fix(
            says="Install sdsetup into its own environment", commands=(shell.sdsetup(context, "install"),)
        )
    wanted = flavour or (_installed(context) or [installer.flavour_for(context.machine.platform)])[0]
    if context.machine.platform == "win32" and "directml" in _installed(context):
        wanted = "directml"
    actions = tuple(installer.reinstall_flavour(context.python.executable, wanted))
    command = shell.python(context, "-m", "sdsetup", "doctor", "--fix", "--yes", "--only", "runtime")
    return Fix(says=says, commands=(command,), actions=actions)


@check(
    "runtime.flavours",
    "ONNX Runtime installed",
    why="All its flavours write the same folder: with two, one hides the other's providers without a word.",
    reads="packages python machine",
    kinds=WITH_PACKAGES,
)
def flavours(context: CheckContext) -> Verdict:
    """Count the flavours; exactly one is right."""
    found = _installed(context)
    named = " and ".join(
        f"{FLAVOUR_DISTRIBUTIONS[flavour]} {context.packages.versions[FLAVOUR_DISTRIBUTIONS[flavour]]}"
        for flavour in found
    )
    if len(found) > 1:
        usual = installer.flavour_for(context.machine.platform)
        possible = [flavour for flavour in found if installer.exists_for(context.machine.platform, flavour)]
        keep = next((flavour for flavour in possible if flavour != "cpu"), usual)
        return failure(
            f"{named} are installed at once",
            _reinstall(context, f"Keep {FLAVOUR_DISTRIBUTIONS[keep]} only", keep),
        )
    if not found:
        return failure("none is installed", _reinstall(context, "Install the one for this machine"))
    if context.machine.platform == "win32" and found == ["cpu"]:
        return warning(
            f"{named}, which has no DirectML", _reinstall(context, "Replace it by DirectML's", "directml")
        )
    return ok(named)


@check(
    "runtime.import",
    "ONNX Runtime starts",
    why="A library that it is linked with may be missing, which shows only when it is imported.",
    reads="runtime packages python machine",
    kinds=WITH_PACKAGES,
)
def starts(context: CheckContext) -> Verdict:
    """See whether it could be imported in a process of its own."""
    runtime = context.runtime
    if not runtime.import_error:
        if runtime.version:
            return ok(f"version {runtime.version}")
        return failure(
            "the folder onnxruntime is there but empty of code, as a half-removed flavour leaves it",
            _reinstall(context, "Install it again, whole"),
        )
    if not _installed(context):
        return skipped("it is not installed")
    if "DLL load failed" in runtime.import_error:
        vc_runtime = Fix(
            says="Install the Visual C++ runtime; if it is there, install ONNX Runtime again",
            commands=(
                "winget install --exact --id Microsoft.VCRedist.2015+.x64",
                *_reinstall(context, "").commands,
            ),
        )
        return failure(runtime.import_error, vc_runtime)
    return failure(runtime.import_error, _reinstall(context, "Install it again, whole"))


@check(
    "runtime.providers",
    "Providers listed",
    why="Only a provider that this build of ONNX Runtime lists can be used.",
    reads="runtime packages python machine",
    kinds=WITH_PACKAGES,
)
def providers(context: CheckContext) -> Verdict:
    """Compare the listed providers with what the installed flavour should bring."""
    runtime = context.runtime
    if runtime.import_error or not runtime.version:
        return skipped("ONNX Runtime does not start")
    listed = [name for name in runtime.providers if name not in _LISTED_ONLY]
    seen = ", ".join(listed) or "none"
    expected = {
        "directml": "DmlExecutionProvider",
        "windowsml": "DmlExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "migraphx": "MIGraphXExecutionProvider",
        "openvino": "OpenVINOExecutionProvider",
    }
    for flavour in _installed(context):
        provider = expected.get(flavour)
        if provider and provider not in listed:
            return failure(
                f"{seen}; {provider} is missing although {FLAVOUR_DISTRIBUTIONS[flavour]} is installed:"
                " another flavour has written over it",
                _reinstall(context, f"Leave only {FLAVOUR_DISTRIBUTIONS[flavour]}", flavour),
            )
    return ok(seen)


@check(
    "runtime.directml",
    "DirectML library",
    why="Windows' own DirectML.dll is older than the operators that ONNX Runtime hands it.",
    reads="runtime machine packages python",
    kinds=frozenset({"anything", "generate"}),
)
def directml(context: CheckContext) -> Verdict:
    """See which DirectML.dll is loaded, and from where."""
    if context.machine.platform != "win32":
        return skipped("DirectML is Windows' own")
    runtime = context.runtime
    if "DmlExecutionProvider" not in runtime.providers:
        return skipped("this ONNX Runtime has no DirectML")
    if not runtime.directml_version:
        return failure("no DirectML.dll was found", _reinstall(context, "Install it again, whole"))
    seen = f"{runtime.directml_version} from {runtime.directml_path}"
    numbers = [int(part) for part in runtime.directml_version.split(".")[:2] if part.isdigit()]
    if tuple(numbers) < _DIRECTML:
        return warning(f"{seen}; 1.15 is expected", _reinstall(context, "Install it again, whole"))
    return ok(seen)


@check(
    "runtime.trial",
    "Providers tried",
    why="A listed provider may still be unusable, and ONNX Runtime then falls back to the CPU in silence.",
    reads="runtime packages python machine",
    kinds=WITH_PACKAGES,
)
def trial(context: CheckContext) -> Verdict:
    """Judge the tiny graph's numbers on each provider and adapter."""
    trials = context.runtime.trials
    if not trials:
        return skipped("ONNX Runtime does not start")
    seen = "; ".join(map(_describe, trials))
    failed = [trial for trial in trials if trial.error]
    if not failed:
        return ok(seen)
    if any(trial.provider == "CPUExecutionProvider" for trial in failed):
        return failure(seen, _reinstall(context, "Install ONNX Runtime again, whole"))
    advice = Fix(
        says=_advice(failed[0]),
        commands=(shell.sdsetup(context, "doctor", "--only", "adapter.driver,runtime.trial"),),
    )
    works = [trial for trial in trials if not trial.error and trial.provider != "CPUExecutionProvider"]
    return warning(seen, advice) if works else failure(seen, advice)


def _describe(trial: ProviderTrial) -> str:
    name = trial.provider.removesuffix("ExecutionProvider")
    where = name if trial.device is None else f"{name} on adapter {trial.device}"
    if trial.error:
        return f"{where}: {trial.error}"
    return f"{where}: right to {trial.largest_error:.1g} in {1000 * trial.seconds:.0f} ms"


# Source: dxgi.h (DXGI_ERROR_*) and winerror.h.
_ADVICE = (
    ("887A0005", "The driver gave the device up: update the graphics driver and start the machine anew"),
    ("887A0006", "The driver hung: update the graphics driver and start the machine anew"),
    ("8007000E", "The adapter's memory is full: close other programs that use it"),
    ("80070057", "The driver refused a kernel: update the graphics driver"),
    ("80004005", "The driver could not make a kernel: update the graphics driver"),
    ("fell back", "Update the graphics driver; Direct3D 12 must be there"),
    ("no answer", "Update the graphics driver; it hangs at the first use"),
)


def _advice(trial: ProviderTrial) -> str:
    told = next((says for sign, says in _ADVICE if sign.lower() in trial.error.lower()), "")
    return told or "Update the graphics driver, then look again; until then use --provider cpu"

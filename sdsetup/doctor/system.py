"""Checks of the operating system and what belongs to it."""

from __future__ import annotations

from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.registry import CheckContext, check

# Source: Microsoft's DirectML page: built into Windows 10, version 1903 (build 18362) and newer.
_DIRECTML_BUILD = 18362
# Source: Microsoft's Windows ML page: vendor providers from Windows 11, version 24H2 (build 26100).
WINDOWS_ML_BUILD = 26100
# Source: ONNX Runtime's installation page names Visual C++ 2019 or newer; its 1.20+ binaries want 14.38.
_VC_RUNTIME = (14, 38)
_ENABLE_LONG_PATHS = (
    "Set-ItemProperty -Path HKLM:\\SYSTEM\\CurrentControlSet\\Control\\FileSystem"
    " -Name LongPathsEnabled -Value 1"
)
_VC_DOWNLOAD = "https://aka.ms/vs/17/release/vc_redist.x64.exe"


@check(
    "system.os",
    "Operating system",
    why="DirectML needs Windows 10 version 1903 or newer; elsewhere sdsetup uses the CPU or CUDA.",
    reads="machine",
)
def operating_system(context: CheckContext) -> Verdict:
    """Compare the build with what DirectML needs."""
    machine = context.machine
    if machine.platform != "win32":
        return ok(f"{machine.release or machine.platform}; DirectML is Windows' own, so not here")
    seen = f"{machine.release}, build {machine.build}"
    if machine.build < _DIRECTML_BUILD:
        return failure(
            f"{seen}; DirectML begins with build {_DIRECTML_BUILD}",
            Fix(says="Update Windows", commands=("start ms-settings:windowsupdate",)),
        )
    if machine.build >= WINDOWS_ML_BUILD:
        return ok(f"{seen}; Windows ML could add its vendor's provider here, which sdsetup does not use yet")
    return ok(seen)


@check(
    "system.long-paths",
    "Long paths",
    why="Without them a path ends at 259 characters, and the Hub's cache makes long ones.",
    reads="machine",
)
def long_paths(context: CheckContext) -> Verdict:
    """See whether Windows allows them."""
    if context.machine.platform != "win32":
        return skipped("only Windows limits the length of paths to 259 characters")
    if context.machine.long_paths is None:
        return skipped("the setting could not be read")
    if context.machine.long_paths:
        return ok("enabled")
    return warning(
        "LongPathsEnabled is 0",
        Fix(
            says="Enable them in an administrator's PowerShell, then sign in again",
            commands=(_ENABLE_LONG_PATHS,),
        ),
    )


@check(
    "system.vc-runtime",
    "Visual C++ runtime",
    why="ONNX Runtime's libraries need version 14.38 or newer; with an older one the import fails.",
    reads="machine",
)
def vc_runtime(context: CheckContext) -> Verdict:
    """Compare Windows' C++ runtime with what ONNX Runtime was built with."""
    machine = context.machine
    if machine.platform != "win32":
        return skipped("only Windows has it")
    fix = Fix(
        says=f"Install the newest one, {_VC_DOWNLOAD}",
        commands=("winget install --exact --id Microsoft.VCRedist.2015+.x64",),
    )
    if machine.vc_runtime is None:
        return failure("msvcp140.dll is not in System32", fix)
    seen = ".".join(map(str, machine.vc_runtime))
    return ok(seen) if machine.vc_runtime >= _VC_RUNTIME else failure(f"{seen} is older than 14.38", fix)


@check(
    "system.scanner",
    "Virus scanner",
    why="A scanner that reads every new file slows writing gigabytes of weights, and may hold files open.",
    reads="machine folders",
    kinds=frozenset({"anything", "install", "convert"}),
)
def scanner(context: CheckContext) -> Verdict:
    """Name the scanner when there is one."""
    if context.machine.platform != "win32":
        return skipped("looked for on Windows only")
    if not context.machine.real_time_scanner:
        return ok("Microsoft Defender does not scan in real time here; others are not looked for")
    folder = context.folder("output").probed
    return ok(
        f"{context.machine.real_time_scanner} scans in real time. Only if writing is slow: exclude the output"
        f" folder in an administrator's PowerShell with Add-MpPreference -ExclusionPath '{folder}'"
    )


@check(
    "system.git",
    "git",
    why="sdsetup never runs git; it is for cloning this project and models kept as git repositories.",
    reads="tools machine",
    kinds=frozenset({"anything"}),
)
def git(context: CheckContext) -> Verdict:
    """CheckContext for git; nothing of sdsetup's needs it."""
    if context.tools.git:
        return ok(context.tools.git)
    command = {"win32": "winget install --exact --id Git.Git", "darwin": "xcode-select --install"}.get(
        context.machine.platform, "sudo apt install git"
    )
    return warning(
        "git is not on PATH; downloading, converting and making images work without it",
        Fix(says="Install it only if you want to clone or update with git", commands=(command,)),
    )


@check(
    "system.session",
    "Session",
    why="Inside WSL, a container or a remote session the graphics adapters differ from the machine's own.",
    reads="machine",
)
def session(context: CheckContext) -> Verdict:
    """Note where this process lives."""
    machine = context.machine
    if machine.wsl:
        return warning(
            "this is WSL; DirectML is reached from Windows' own Python, not from Linux' ONNX Runtime",
            Fix(
                says="For images on the GPU run sdsetup in Windows itself",
                commands=("py -3.12 -m sdsetup install",),
            ),
        )
    notes = [machine.container and f"in a {machine.container} container", machine.remote_session]
    if machine.platform == "win32" and machine.remote_session:
        return warning(
            "a remote desktop session may show Windows' basic render driver instead of the GPU",
            Fix(says="If no hardware adapter is found below, start sdsetup at the machine itself"),
        )
    return ok(", ".join(note for note in notes if note) or "local")


@check(
    "system.cpu",
    "Processor",
    why="The CPU provider and the numeric checks are several times slower without AVX2.",
    reads="machine",
)
def cpu(context: CheckContext) -> Verdict:
    """See whether numeric kernels find what they want."""
    machine = context.machine
    seen = f"{machine.cpu or machine.architecture}, {machine.cores} cores"
    if machine.architecture.lower() not in {"x86_64", "amd64"}:
        return ok(seen)
    features = ", ".join(sorted(machine.cpu_features)) or "none of the features that matter"
    if not machine.cpu_features:
        return ok(f"{seen}; its features could not be read")
    if "avx2" not in machine.cpu_features:
        return warning(
            f"{seen}; it has {features} and no AVX2",
            Fix(
                says="Expect slow conversions; leave the parity check to a faster machine",
                commands=(shell.sdsetup(context, "convert", "MODEL", "--no-verify"),),
            ),
        )
    return ok(f"{seen}; {features}")

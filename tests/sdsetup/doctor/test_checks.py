"""Each check over made environments: what is well, what is not, and that every complaint has a way out."""

from dataclasses import replace
from typing import Any

import pytest

from sdsetup.bootstrap import known_good
from sdsetup.doctor.checks import checks
from sdsetup.doctor.judge import judge
from sdsetup.doctor.purpose import purpose
from sdsetup.doctor.registry import CheckContext
from sdsetup.machine.adapters import Adapter
from sdsetup.machine.facts import (
    Environment,
    Folder,
    Hub,
    Imports,
    Machine,
    Packages,
    Plan,
    ProviderTrial,
    Python,
    Runtime,
    Tools,
)

GIB = 1024**3
CONVERTING = {"torch", "diffusers", "transformers", "onnxscript"}
RX6800 = Adapter(
    index=0,
    name="AMD Radeon RX 6800 XT",
    vendor_id=0x1002,
    device_id=0x73BF,
    vram_bytes=16 * GIB,
    driver_version="31.0.24027.1012",
    integrated=False,
)
INTEGRATED = Adapter(
    index=0,
    name="AMD Radeon(TM) Graphics",
    vendor_id=0x1002,
    device_id=0x164E,
    vram_bytes=GIB // 2,
    shared_bytes=8 * GIB,
    driver_version="31",
    integrated=True,
)
WARP = Adapter(index=1, name="Microsoft Basic Render Driver", vendor_id=0x1414, device_id=0x8C, software=True)


def _folder(role: str, **changes: Any) -> Folder:
    whole = Folder(
        role=role,
        path=f"/data/{role}",
        probed="/data",
        free_bytes=10**12,
        total_bytes=2 * 10**12,
        file_system="ext4",
        writable=True,
        symlinks=True,
        hard_links=True,
        case_sensitive=True,
    )
    return replace(whole, **changes)


def _healthy(platform: str) -> Environment:
    pins = known_good.versions(platform)
    flavour = "onnxruntime-directml" if platform == "win32" else "onnxruntime"
    others = {name for name in pins if name.startswith("onnxruntime")} - {flavour}
    windows = platform == "win32"
    return Environment(
        machine=Machine(
            platform=platform,
            release="Windows 11 23H2" if windows else "Debian",
            build=22631 if windows else 0,
            architecture="AMD64",
            cpu="Ryzen",
            cpu_features=frozenset({"avx2"}),
            cores=8,
            ram_bytes=32 * GIB,
            ram_available_bytes=24 * GIB,
            commit_limit_bytes=40 * GIB,
            commit_used_bytes=8 * GIB,
            long_paths=True if windows else None,
            vc_runtime=(14, 40) if windows else None,
        ),
        python=Python(
            version=(3, 12, 4),
            executable="/data/venv/bin/python",
            in_environment=True,
            environment="/data/.venv",
            environment_state="ready",
            pip="26.3",
        ),
        adapters=(RX6800, WARP),
        folders=tuple(_folder(role) for role in ("cache", "output", "temp")),
        packages=Packages(
            versions={name: version for name, version in pins.items() if name not in others},
            core=frozenset(pins) - others - CONVERTING,
        ),
        imports=Imports(tried=20),
        runtime=Runtime(
            version="1.24.4",
            providers=("DmlExecutionProvider", "CPUExecutionProvider")
            if windows
            else ("CPUExecutionProvider",),
            directml_version="1.15.4.0" if windows else "",
            directml_path="C:\\site-packages\\DirectML.dll" if windows else "",
            trials=(ProviderTrial(provider="CPUExecutionProvider", seconds=0.01),),
        ),
        tools=Tools(git="git version 2.45"),
        hub=Hub(
            endpoint="https://huggingface.co",
            reach="online",
            issuer="Amazon",
            clock_ahead_seconds=0.4,
            token_source="/data/token",
            token_state="valid",
            token_kind="read",
            model="owner/name",
            access="granted",
            data_host="cas-bridge.xethub.hf.co",
        ),
        plan=Plan(
            model="owner/name",
            download_bytes=4 * 10**9,
            package_bytes=2 * 10**9,
            ram_bytes=5 * GIB,
            vram_bytes=4 * GIB,
            vram_least_bytes=3 * GIB,
            side=512,
        ),
    )


def _verdict(environment: Environment, finding_id: str, kind: Any = "anything") -> Any:
    chosen = [check for check in checks() if check.id == finding_id]
    return judge(chosen, environment, purpose(kind))[0].verdict


@pytest.mark.parametrize("platform", ["win32", "linux", "darwin"])
@pytest.mark.parametrize("check", checks(), ids=lambda check: check.id)
def test_a_healthy_machine_gets_no_complaint(platform: str, check: Any) -> None:
    verdict = _verdict(_healthy(platform), check.id)
    assert verdict.status in {"ok", "skipped"}, verdict
    assert verdict.evidence
    assert verdict.fix is None


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.id)
def test_each_check_finds_something_to_judge_on_one_platform_at_least(check: Any) -> None:
    found = {_verdict(_healthy(platform), check.id).status for platform in ("win32", "linux", "darwin")}
    assert "ok" in found


def test_facts_that_were_not_read_give_skipped_findings_with_the_reason() -> None:
    empty = Environment(unknown=dict.fromkeys(("machine", "hub", "runtime"), "no answer within 5 s"))
    for finding in judge(checks(), empty, purpose()):
        assert finding.verdict.status == "skipped"
        assert finding.verdict.evidence


# id, what differs from the healthy machine, platform, status, words of the evidence
BROKEN: list[tuple[str, dict[str, dict[str, Any]], str, str, str]] = [
    ("python.version", {"python": {"version": (3, 14, 0)}}, "linux", "failure", "3.14"),
    ("python.version", {"python": {"version": (3, 10, 9)}}, "win32", "failure", "3.10"),
    ("python.version", {"python": {"implementation": "PyPy"}}, "linux", "failure", "PyPy"),
    ("python.version", {"python": {"free_threaded": True}}, "linux", "failure", "free-threaded"),
    ("python.bits", {"python": {"bits": 32}}, "win32", "failure", "32 bits"),
    ("python.bits", {"machine": {"architecture": "ARM64"}}, "win32", "failure", "ARM64"),
    ("python.store", {"python": {"store": True}}, "win32", "warning", "Store"),
    ("python.environment", {"python": {"environment_state": "broken"}}, "linux", "failure", "gone"),
    (
        "python.environment",
        {"python": {"in_environment": False, "environment_state": "absent"}},
        "linux",
        "warning",
        "not made",
    ),
    (
        "python.environment",
        {"python": {"in_environment": False, "environment_state": "unfinished"}},
        "linux",
        "warning",
        "not finished",
    ),
    (
        "python.pip",
        {"python": {"pip": "", "pip_error": "No module named pip"}},
        "linux",
        "failure",
        "No module",
    ),
    (
        "python.pip",
        {"python": {"pip": "", "pip_error": "x", "has_ensurepip": False}},
        "linux",
        "failure",
        "ensurepip",
    ),
    ("system.os", {"machine": {"build": 17763}}, "win32", "failure", "18362"),
    ("system.long-paths", {"machine": {"long_paths": False}}, "win32", "warning", "LongPathsEnabled"),
    ("system.vc-runtime", {"machine": {"vc_runtime": (14, 29)}}, "win32", "failure", "14.29"),
    ("system.vc-runtime", {"machine": {"vc_runtime": None}}, "win32", "failure", "msvcp140"),
    ("system.git", {"tools": {"git": ""}}, "linux", "warning", "work without it"),
    ("system.session", {"machine": {"wsl": True}}, "linux", "warning", "WSL"),
    (
        "system.session",
        {"machine": {"remote_session": "remote desktop"}},
        "win32",
        "warning",
        "remote desktop",
    ),
    ("system.cpu", {"machine": {"cpu_features": frozenset({"avx"})}}, "linux", "warning", "AVX2"),
    ("memory.ram", {"machine": {"ram_bytes": 4 * GIB}}, "win32", "failure", "4.0 GiB"),
    ("memory.ram", {"machine": {"ram_available_bytes": GIB}}, "linux", "warning", "1.0 GiB"),
    (
        "memory.commit",
        {"machine": {"commit_used_bytes": 39 * GIB}},
        "win32",
        "warning",
        "1.0 GiB of 40.0 GiB",
    ),
    ("memory.commit", {"machine": {"commit_used_bytes": 39 * GIB}}, "linux", "warning", "promised"),
    ("packages.known-good", {"packages": {"onnx": "1.10.0"}}, "linux", "warning", "onnx 1.10.0 (tested"),
    ("packages.core", {"packages": {"typer": None}}, "linux", "failure", "typer"),
    ("packages.core", {"packages": {"socksio": None}}, "win32", "failure", "socksio"),
    ("packages.convert", {"packages": {"torch": None}}, "linux", "failure", "torch"),
    ("packages.convert", {"packages": dict.fromkeys(CONVERTING)}, "linux", "warning", "torch"),
    ("packages.known-good", {"packages": {"onnx": "1"}}, "linux", "failure", "onnx is 1, and x wants >2"),
    ("packages.imports", {"imports": {"failed": {"numpy": "ImportError: libm"}}}, "linux", "failure", "libm"),
    (
        "packages.imports",
        {"imports": {"failed": {"sdsetup.cli.app": "SyntaxError"}}},
        "linux",
        "failure",
        "Syntax",
    ),
    (
        "python.search-path",
        {"python": {"left_out_paths": {"/opt/other": ["numpy", "typer"]}}},
        "linux",
        "warning",
        "/opt/other holds numpy, typer",
    ),
    (
        "python.pip-settings",
        {"python": {"pip_settings_error": "pip cannot read its own settings"}},
        "linux",
        "failure",
        "cannot read",
    ),
    (
        "python.environment",
        {
            "python": {
                "in_environment": False,
                "environment_fault": "/x is there",
                "environment_advice": "move it",
            }
        },
        "linux",
        "failure",
        "/x is there",
    ),
    ("runtime.flavours", {"packages": {"onnxruntime": "1.32.0"}}, "win32", "failure", "at once"),
    ("runtime.flavours", {"packages": {"onnxruntime": None}}, "linux", "failure", "none"),
    (
        "runtime.flavours",
        {"packages": {"onnxruntime-windowsml": "1.30.0"}},
        "win32",
        "failure",
        "onnxruntime-directml 1.24.4 and onnxruntime-windowsml 1.30.0 are installed at once",
    ),
    (
        "runtime.import",
        {"runtime": {"import_error": "ImportError: DLL load failed"}},
        "win32",
        "failure",
        "DLL",
    ),
    ("runtime.import", {"runtime": {"import_error": "ImportError: numpy"}}, "linux", "failure", "numpy"),
    ("runtime.import", {"runtime": {"version": ""}}, "linux", "failure", "half-removed"),
    (
        "runtime.providers",
        {"runtime": {"providers": ("CPUExecutionProvider",)}},
        "win32",
        "failure",
        "missing",
    ),
    ("runtime.directml", {"runtime": {"directml_version": "1.8.0.0"}}, "win32", "warning", "1.8.0.0"),
    ("runtime.directml", {"runtime": {"directml_version": ""}}, "win32", "failure", "no DirectML.dll"),
    (
        "runtime.trial",
        {
            "runtime": {
                "trials": (ProviderTrial(provider="DmlExecutionProvider", device=0, error="887A0005"),)
            }
        },
        "win32",
        "failure",
        "887A0005",
    ),
    (
        "runtime.trial",
        {"runtime": {"trials": (ProviderTrial(provider="CPUExecutionProvider", error="wrong"),)}},
        "linux",
        "failure",
        "wrong",
    ),
    (
        "model.plan",
        {"plan": {"error": "Its UNet is unheard of.", "code": "family.none"}},
        "linux",
        "failure",
        "UNet",
    ),
    ("hub.reachable", {"hub": {"reach": "error", "detail": "no HTTP"}}, "linux", "failure", "no HTTP"),
    (
        "hub.endpoint",
        {"hub": {"endpoint": "https://mirror", "default_endpoint": False, "data_host": "huggingface.co"}},
        "linux",
        "warning",
        "huggingface.co",
    ),
    (
        "hub.proxy",
        {
            "hub": {
                "reach": "proxy",
                "proxy": "http://proxy:1",
                "proxy_variable": "HTTPS_PROXY",
                "detail": "refused",
            }
        },
        "linux",
        "failure",
        "refused",
    ),
    ("hub.tls", {"hub": {"reach": "tls", "detail": "self-signed"}}, "win32", "failure", "self-signed"),
    ("hub.tls", {"hub": {"issuer": "Zscaler Inc."}}, "linux", "warning", "Zscaler"),
    (
        "hub.token",
        {"hub": {"token_state": "refused", "token_source": "HF_TOKEN"}},
        "win32",
        "failure",
        "HF_TOKEN",
    ),
    ("hub.token", {"hub": {"token_kind": "write"}}, "linux", "warning", "write"),
    (
        "hub.hidden-token",
        {"hub": {"hidden_token": "/t", "token_source": "HF_TOKEN"}},
        "linux",
        "warning",
        "hides",
    ),
    ("hub.access", {"hub": {"access": "gated"}}, "linux", "failure", "gated"),
    ("hub.access", {"hub": {"access": "missing"}}, "linux", "failure", "does not exist"),
    ("hub.clock", {"hub": {"clock_ahead_seconds": -4000.0}}, "win32", "failure", "4000 s behind"),
    ("hub.clock", {"hub": {"clock_ahead_seconds": 4000.0}}, "linux", "failure", "ahead"),
]

BROKEN_FOLDERS: list[tuple[str, str, dict[str, Any], str, str, str]] = [
    ("storage.cache-space", "cache", {"free_bytes": 10**9}, "linux", "failure", "1.0 GB free"),
    ("storage.cache-space", "cache", {"free_bytes": 65 * 10**8}, "win32", "warning", "tight"),
    ("storage.output-space", "output", {"free_bytes": 0}, "linux", "failure", "0.0 MB free"),
    ("storage.temp-space", "temp", {"free_bytes": 5000}, "win32", "failure", "0.0 MB free"),
    ("storage.writable", "cache", {"writable": False, "error": "Read-only"}, "linux", "failure", "Read-only"),
    ("storage.file-system", "output", {"file_system": "vfat"}, "linux", "warning", "vfat"),
    ("storage.file-system", "cache", {"file_system": "FAT32"}, "win32", "warning", "FAT32"),
    ("storage.symlinks", "cache", {"symlinks": False}, "win32", "warning", "none can be made"),
    ("storage.symlinks", "cache", {"symlinks": False}, "linux", "warning", "none can be made"),
    ("storage.paths", "output", {"path": "/data/\udcff"}, "linux", "warning", "no text"),
]

BROKEN_ADAPTERS: list[tuple[str, tuple[Adapter, ...], str, str, str]] = [
    ("adapter.present", (WARP,), "win32", "warning", "no hardware adapter"),
    ("adapter.present", (), "linux", "warning", "CPU"),
    ("adapter.vram", (replace(RX6800, vram_bytes=4 * GIB),), "win32", "warning", "4.0 GiB"),
    ("adapter.vram", (replace(RX6800, vram_bytes=GIB),), "win32", "failure", "2.0 GiB are the least"),
    ("adapter.driver", (replace(RX6800, driver_version=""),), "linux", "warning", "no driver"),
    ("adapter.driver", (replace(RX6800, driver="vfio-pci"),), "linux", "warning", "virtual machine"),
]


def _changed(environment: Environment, changes: dict[str, dict[str, Any]]) -> Environment:
    for field, values in changes.items():
        if field == "packages":
            assert environment.packages is not None
            have = {**environment.packages.versions, **values}
            new: Any = replace(
                environment.packages,
                versions={name: version for name, version in have.items() if version},
                missing={name: "sdsetup" for name, version in have.items() if not version},
                unfit={
                    name: f"{version}, and x wants >2" for name, version in values.items() if version == "1"
                },
            )
        else:
            new = replace(getattr(environment, field), **values)
        environment = replace(environment, **{field: new})
    return environment


def _complains(environment: Environment, finding_id: str, status: str, words: str) -> None:
    verdict = _verdict(environment, finding_id)
    assert verdict.status == status, verdict
    assert words in verdict.evidence
    assert verdict.fix is not None
    assert verdict.fix.says


@pytest.mark.parametrize(("finding_id", "changes", "platform", "status", "words"), BROKEN)
def test_what_is_broken_is_found_and_has_a_fix(
    finding_id: str, changes: dict[str, dict[str, Any]], platform: str, status: str, words: str
) -> None:
    _complains(_changed(_healthy(platform), changes), finding_id, status, words)


@pytest.mark.parametrize(("finding_id", "role", "changes", "platform", "status", "words"), BROKEN_FOLDERS)
def test_a_broken_folder_is_found_and_has_a_fix(
    finding_id: str, role: str, changes: dict[str, Any], platform: str, status: str, words: str
) -> None:
    healthy = _healthy(platform)
    assert healthy.folders is not None
    folders = tuple(
        replace(folder, **changes) if folder.role == role else folder for folder in healthy.folders
    )
    _complains(replace(healthy, folders=folders), finding_id, status, words)


@pytest.mark.parametrize(("finding_id", "found", "platform", "status", "words"), BROKEN_ADAPTERS)
def test_a_broken_adapter_is_found_and_has_a_fix(
    finding_id: str, found: tuple[Adapter, ...], platform: str, status: str, words: str
) -> None:
    _complains(replace(_healthy(platform), adapters=found), finding_id, status, words)


def test_torn_packages_and_long_cache_paths_are_found() -> None:
    healthy = _healthy("win32")
    assert healthy.packages is not None
    torn = replace(healthy, packages=replace(healthy.packages, torn={"numpy": "of 900 files 12 are missing"}))
    _complains(torn, "packages.whole", "failure", "12 are missing")
    folders = (_folder("cache", path="C:\\" + "x" * 200), _folder("output"), _folder("temp"))
    long = replace(_changed(healthy, {"machine": {"long_paths": False}}), folders=folders)
    _complains(long, "storage.path-length", "failure", "203 characters")


def test_every_check_is_shown_complaining() -> None:
    """A check that no test can make complain would be decoration."""
    never = {"system.scanner", "adapter.choice", "adapter.amd-routes"}  # these inform, they do not judge
    shown = {row[0] for row in (*BROKEN, *BROKEN_FOLDERS, *BROKEN_ADAPTERS)}
    shown |= {"packages.whole", "storage.path-length"}
    assert shown | never == {check.id for check in checks()}


def test_settings_of_pip_that_are_left_out_are_named() -> None:
    told = _changed(
        _healthy("linux"), {"python": {"pip_left_out": {"user": "1"}, "pip_kept": {"index-url": "x"}}}
    )
    assert _verdict(told, "python.pip-settings").evidence == "left out by sdsetup: user; kept: index-url"


def test_a_torn_torch_stands_in_the_way_of_converting_and_not_of_images() -> None:
    healthy = _healthy("linux")
    assert healthy.packages is not None
    torn = replace(healthy, packages=replace(healthy.packages, torn={"torch": "of 9000 files 1 is missing"}))
    assert _verdict(torn, "packages.whole", "convert").status == "failure"
    assert _verdict(torn, "packages.whole", "generate").status == "ok"


def test_offline_is_skipped_and_never_a_failure() -> None:
    offline = _changed(
        _healthy("linux"), {"hub": {"reach": "offline", "detail": "Name or service not known"}}
    )
    found = judge([check for check in checks() if check.id.startswith("hub.")], offline, purpose())
    assert not [finding for finding in found if finding.verdict.status in {"failure", "warning"}]
    assert "offline" in found[0].verdict.evidence


def test_a_discrete_adapter_is_chosen_before_an_integrated_one_of_a_lower_index() -> None:
    both = replace(_healthy("win32"), adapters=(INTEGRATED, replace(RX6800, index=1)))
    verdict = _verdict(both, "adapter.choice")
    assert verdict.evidence.startswith("[1] AMD Radeon RX 6800 XT")
    assert "memory of its own" in verdict.evidence


def test_an_integrated_adapter_counts_the_memory_that_it_shares() -> None:
    alone = replace(_healthy("win32"), adapters=(INTEGRATED,))
    assert _verdict(alone, "adapter.vram").status == "ok"


def test_routes_of_an_amd_adapter_differ_by_system_and_generation() -> None:
    windows = _verdict(_healthy("win32"), "adapter.amd-routes").evidence
    assert "gfx1030" in windows
    assert "routes this card to DirectML" in windows
    newer = replace(_healthy("win32"), adapters=(replace(RX6800, device_id=0x744C),))
    assert "needs Windows 11 24H2" in _verdict(newer, "adapter.amd-routes").evidence
    newest = _changed(newer, {"machine": {"build": 26100}})
    assert "not used by sdsetup yet" in _verdict(newest, "adapter.amd-routes").evidence
    linux = _verdict(_healthy("linux"), "adapter.amd-routes").evidence
    assert "ROCm: supported by AMD" in linux


def test_a_check_that_crashes_becomes_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(context: CheckContext) -> Any:
        raise ZeroDivisionError("by zero")

    broken = replace(checks()[0], judge=crash)
    (finding,) = judge([broken], _healthy("linux"), purpose())
    assert finding.verdict.status == "failure"
    assert "by zero" in finding.verdict.evidence
    assert finding.verdict.fix is not None


def test_windows_ml_s_onnx_runtime_brings_directml_and_is_mended_as_what_it_is() -> None:
    packages = {"onnxruntime-directml": None, "onnxruntime-windowsml": "1.30.0"}
    right = _changed(_healthy("win32"), {"packages": packages})
    assert _verdict(right, "runtime.flavours").evidence == "onnxruntime-windowsml 1.30.0"
    assert _verdict(right, "runtime.flavours").status == "ok"
    hidden = _changed(right, {"runtime": {"providers": ("CPUExecutionProvider",)}})
    verdict = _verdict(hidden, "runtime.providers")
    assert "DmlExecutionProvider is missing although onnxruntime-windowsml is installed" in verdict.evidence
    old = _changed(right, {"runtime": {"directml_version": "1.8.0.0"}})
    for broken, check in ((hidden, "runtime.providers"), (old, "runtime.directml")):
        fix = _verdict(broken, check).fix
        assert fix is not None
        assert fix.actions[-1].argv[-1].startswith("onnxruntime-windowsml")


def test_a_python_of_the_whole_machine_is_never_changed_by_itself() -> None:
    bare = _changed(
        _healthy("linux"),
        {"python": {"in_environment": False}, "packages": {"onnxruntime": None, "typer": None}},
    )
    for finding_id in ("runtime.flavours", "packages.core"):
        fix = _verdict(bare, finding_id).fix
        assert not fix.actions
        assert fix.commands == ("python -m sdsetup install",)


def test_settings_of_pip_are_named_where_they_say_whence_packages_come() -> None:
    whence = (
        *("cert", "client-cert", "constraint", "extra-index-url", "find-links", "index-url", "no-index"),
        *("only-binary", "proxy", "trusted-host"),
    )
    kept = dict.fromkeys((*whence, "timeout", "quiet"), "x")
    told = _changed(_healthy("linux"), {"python": {"pip_kept": kept}})
    assert _verdict(told, "python.pip-settings").evidence == f"kept: {', '.join(whence)}"
    told = _changed(
        told, {"python": {"pip_kept": {"quiet": "1"}, "pip_left_out": {"user": "1", "target": "x"}}}
    )
    assert _verdict(told, "python.pip-settings").evidence == (
        "left out by sdsetup: target, user; kept: none about where packages come from"
    )


def test_advice_is_written_as_a_sentence_without_its_end() -> None:
    fault = {"in_environment": False, "environment_fault": "/x is there", "environment_advice": "move it."}
    found = _verdict(_changed(_healthy("linux"), {"python": fault}), "python.environment")
    assert found.evidence == "/x is there"
    assert found.fix.says == "Move it"


@pytest.mark.parametrize(
    ("version", "status"), [((14, 37), "failure"), ((14, 38), "ok"), ((14, 39), "ok"), ((15, 0), "ok")]
)
def test_the_runtime_of_visual_c_has_a_least_version(version: tuple[int, int], status: str) -> None:
    told = _changed(_healthy("win32"), {"machine": {"vc_runtime": version}})
    assert _verdict(told, "system.vc-runtime").status == status


@pytest.mark.parametrize(
    ("container", "remote", "said"),
    [
        ("", "", "local"),
        ("Docker", "", "in a Docker container"),
        ("", "SSH", "SSH"),
        ("Docker", "SSH", "in a Docker container, SSH"),
    ],
)
def test_a_session_is_told_with_all_that_is_around_it(container: str, remote: str, said: str) -> None:
    told = _changed(_healthy("linux"), {"machine": {"container": container, "remote_session": remote}})
    assert _verdict(told, "system.session").evidence == said


def test_a_provider_that_every_build_lists_is_left_out() -> None:
    listed = ("AzureExecutionProvider", "CPUExecutionProvider")
    told = _changed(_healthy("linux"), {"runtime": {"providers": listed}})
    assert _verdict(told, "runtime.providers").evidence == "CPUExecutionProvider"
    told = _changed(told, {"runtime": {"providers": listed[:1]}})
    assert _verdict(told, "runtime.providers").evidence == "none"

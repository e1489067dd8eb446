"""What the doctor answers to each made environment, word by word and command by command.

``answers.json`` holds those that differ from a healthy machine's. After a change of answers that is meant,
write it anew and read what changed: ``python -m tests.sdsetup.doctor.test_answers``.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sdsetup.cli.app import app
from sdsetup.doctor.checks import checks
from sdsetup.doctor.judge import judge
from sdsetup.doctor.purpose import Kind, Purpose, purpose
from sdsetup.machine.adapters import Adapter
from sdsetup.machine.facts import Environment, Folder, ProviderTrial
from tests.sdsetup.doctor.test_checks import (
    BROKEN,
    BROKEN_ADAPTERS,
    BROKEN_FOLDERS,
    GIB,
    INTEGRATED,
    RX6800,
    _changed,
    _healthy,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the answers hold paths of other systems")

ROOT = Path(__file__).parents[3]
ANSWERS = Path(__file__).parent / "answers.json"
PLATFORMS = ("win32", "linux", "darwin")
KINDS: tuple[Kind, ...] = ("anything", "install", "convert", "generate")
PURPOSES: dict[str, Purpose] = {
    **{kind: purpose(kind) for kind in KINDS},
    "convert a model": replace(
        purpose("convert"), model="owner/name", ram_bytes=8 * GIB, ram_least_bytes=3 * GIB, vram_bytes=5 * GIB
    ),
    "images of a package": replace(purpose("generate"), model="/data/package", vram_least_bytes=3 * GIB),
    "a model that is not known": replace(purpose("convert"), model="owner/name", unknown="it is offline"),
}
GEFORCE = replace(RX6800, name="GeForce RTX 3060", vendor_id=0x10DE, device_id=0x2503)
ARC = replace(RX6800, name="Arc A770", vendor_id=0x8086, device_id=0x56A0)

# What no row of test_checks changes: fields of a fact, by the fact and words for the case.
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "a mirror that carries the data": {
        "hub": {"endpoint": "https://mirror", "default_endpoint": False, "data_host": "data.mirror"}
    },
    "a mirror with the hub's data": {
        "hub": {"endpoint": "https://mirror", "default_endpoint": False, "data_host": "cdn.hf.co"}
    },
    "no data host": {"hub": {"data_host": ""}},
    "a mirror that is no hub": {
        "hub": {"reach": "error", "detail": "404", "default_endpoint": False, "endpoint": "https://mirror"}
    },
    "offline without a reason": {"hub": {"reach": "offline", "detail": ""}},
    "a proxy that answers": {"hub": {"proxy": "http://proxy:1", "proxy_variable": "HTTPS_PROXY"}},
    "a proxy of the system": {
        "hub": {"reach": "proxy", "proxy": "http://p:1", "proxy_variable": "the registry", "detail": "no"}
    },
    "plain http": {"hub": {"issuer": ""}},
    "a virus scanner": {"hub": {"issuer": "Kaspersky Anti-Virus"}},
    **{
        f"a certificate of {name}": {"hub": {"issuer": f"{name} Root CA"}}
        for name in (
            *("Zscaler", "Netskope", "Fortinet", "Palo Alto", "Blue Coat", "Symantec Web", "Forcepoint"),
            *("Cisco Umbrella", "Sophos", "Kaspersky", "Avast", "AVG Technologies", "ESET", "Bitdefender"),
            *("mitmproxy", "Fiddler", "Burp"),
        )
    },
    "no token": {"hub": {"token_state": "none"}},
    "a refused token in a file": {"hub": {"token_state": "refused", "token_source": "/data/token"}},
    "a malformed token": {
        "hub": {"token_state": "malformed", "token_source": "HF_TOKEN", "token_fault": "has quotes"}
    },
    "a malformed token in a file": {
        "hub": {"token_state": "malformed", "token_source": "/data/token", "token_fault": "has two lines"}
    },
    "a token that was not asked about": {"hub": {"token_state": "unknown", "detail": ""}},
    "a token that could not be asked about": {"hub": {"token_state": "unknown", "detail": "no answer"}},
    "a token of no kind": {"hub": {"token_kind": ""}},
    "no model": {"hub": {"model": ""}},
    "an unclear answer": {"hub": {"access": "unknown", "detail": "status 500"}},
    "an unclear answer without a word": {"hub": {"access": "unknown", "detail": ""}},
    "an answer without a date": {"hub": {"clock_ahead_seconds": None}},
    "a clock that is 119 s behind": {"hub": {"clock_ahead_seconds": -119.0}},
    "a clock that is 120 s ahead": {"hub": {"clock_ahead_seconds": 120.0}},
    "ROCm": {"machine": {"rocm": "6.4"}},
    "memory that is not known": {"machine": {"ram_bytes": None}},
    "memory that is available is not known": {"machine": {"ram_available_bytes": None}},
    "memory just enough": {"machine": {"ram_bytes": 6 * GIB, "ram_available_bytes": 6 * GIB}},
    "memory a little less": {"machine": {"ram_bytes": 5 * GIB, "ram_available_bytes": 5 * GIB}},
    "no commit limit": {"machine": {"commit_limit_bytes": None}},
    "commit just enough": {"machine": {"commit_limit_bytes": 14 * GIB}},
    "Windows 10": {"machine": {"build": 19045, "release": "Windows 10 22H2"}},
    "Windows 11 24H2": {"machine": {"build": 26100, "release": "Windows 11 24H2"}},
    "the oldest Windows": {"machine": {"build": 18362}},
    "the oldest runtime of Visual C++": {"machine": {"vc_runtime": (14, 30)}},
    "no features of the processor": {"machine": {"cpu_features": frozenset()}},
    "a trial that was slow": {
        "runtime": {"trials": (ProviderTrial(provider="CPUExecutionProvider", seconds=9.0),)}
    },
    "no trial": {"runtime": {"trials": ()}},
    "an old DirectML": {"runtime": {"directml_version": "1.13.0.0"}},
    "the newest Python": {"python": {"version": (3, 13, 9)}},
    "the oldest Python": {"python": {"version": (3, 11, 0)}},
    "ARM": {"machine": {"architecture": "aarch64"}},
    "memory with a model": {"machine": {"ram_bytes": GIB}, "hub": {"model": "owner/name"}},
    "commit just as much": {"machine": {"commit_limit_bytes": 12 * GIB, "commit_used_bytes": 6 * GIB}},
    "an import of pillow": {"imports": {"failed": {"PIL.Image": "ImportError: libjpeg"}}},
    "an import of onnx_ir": {"imports": {"failed": {"onnx_ir": "ImportError: no"}}},
    "an import of hf_xet": {"imports": {"failed": {"hf_xet": "ImportError: no"}}},
    "an import of both": {
        "imports": {"failed": {"numpy:array": "ImportError: no", "conversions.plan": "SyntaxError: no"}}
    },
    "an import of a stranger": {"imports": {"failed": {"stranger": "ImportError: no"}}},
    "imports of five": {"imports": {"failed": dict.fromkeys("abcde", "ImportError: no")}},
    "an import while a core package is missing": {
        "imports": {"failed": {"numpy": "ImportError: no"}},
        "packages": {"typer": None},
    },
    "an import while another package is missing": {
        "imports": {"failed": {"numpy": "ImportError: no"}},
        "packages": {"torch": None},
    },
    **{
        f"a plan that stopped with {code}": {"plan": {"error": "No answer.", "code": code}}
        for code in (
            *("hub.offline", "hub.unreachable", "hub.server", "hub.proxy", "hub.certificate"),
            *("hub.not-in-cache", "hub.rate-limited", "plan.packages", "", "hub.gated", "hub.missing"),
        )
    },
    "a plan of a folder": {"plan": {"error": "It is torn.", "code": "package.torn", "converting": False}},
    "a plan before tracing": {"plan": {"vram_bytes": None}},
    "a plan of a package": {"plan": {"converting": False}},
    "a plan of a small adapter": {"plan": {"largest_side": 448}},
    "no environment": {"python": {"in_environment": False, "environment_state": "absent"}},
    "another environment": {"python": {"in_environment": False, "environment_state": "ready"}},
}
FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "free space that is not known": ("cache", {"free_bytes": None}),
    "free space that cannot be read": ("cache", {"free_bytes": None, "error": "I/O error"}),
    "a cache that a variable sets": ("cache", {"free_bytes": 1, "variable": "HF_HOME", "set_by": "HF_HOME"}),
    "a cache that a file sets": ("cache", {"writable": False, "error": "no", "set_by": "a file"}),
    "an output just too small": ("output", {"free_bytes": 3 * 10**9 - 1}),
    "an output just large enough": ("output", {"free_bytes": 36 * 10**8}),
    "an output that is tight": ("output", {"free_bytes": 36 * 10**8 - 1}),
    "an output with room for just that": ("output", {"free_bytes": 3 * 10**9}),
    **{
        f"an output on {name}": ("output", {"file_system": name})
        for name in ("vfat", "msdos", "FAT", "FAT12", "FAT16", "FAT32", "exFAT", "NTFS")
    },
    "FAT for temporary files": ("temp", {"file_system": "FAT"}),
    "a file system without a name": ("output", {"file_system": ""}),
    "a file system of few abilities": ("output", {"case_sensitive": False, "hard_links": False}),
    "links that were not tried": ("cache", {"symlinks": None}),
    "a path with spaces": ("output", {"path": "/data/my images"}),
    "a path with umlauts": ("cache", {"path": "/data/größe"}),
    "the longest path": ("cache", {"path": "x" * 109}),
    "a path that is too long": ("cache", {"path": "x" * 110, "variable": "HF_HUB_CACHE"}),
}
ADAPTERS: dict[str, tuple[Adapter, ...]] = {
    "an integrated one alone": (INTEGRATED,),
    "both": (INTEGRATED, replace(RX6800, index=1)),
    "NVIDIA": (GEFORCE,),
    "Intel without a driver": (replace(ARC, driver_version=""),),
    "NVIDIA without a driver": (replace(GEFORCE, driver_version=""),),
    "nobody's without a driver": (replace(RX6800, vendor_id=1, driver_version=""),),
    "with a driver of a date": (replace(RX6800, driver="amdgpu", driver_date="2026-01-02"),),
    "memory that is not known": (replace(RX6800, vram_bytes=None),),
    "a newer card": (replace(RX6800, device_id=0x744C),),
    "a card that is not known": (replace(RX6800, device_id=0x0001, name=""),),
    "memory just enough": (replace(RX6800, vram_bytes=6 * GIB * 95 // 100 + 1),),
    "memory just the least": (replace(RX6800, vram_bytes=2 * GIB),),
}


def environments() -> Iterator[tuple[str, Environment]]:
    """Give every environment with words for it."""
    for platform in PLATFORMS:
        healthy = _healthy(platform)
        assert healthy.folders is not None
        yield f"{platform}: healthy", healthy
        for check, changes, _, _, words in BROKEN:
            yield f"{platform}: {check} {words}", _changed(healthy, changes)
        for case, changes in CHANGES.items():
            yield f"{platform}: {case}", _changed(healthy, changes)
        rows = {f"{row[0]} {row[5]}": (row[1], row[2]) for row in BROKEN_FOLDERS}
        for case, (role, change) in (rows | FOLDERS).items():
            folders = _with(healthy.folders, role, change)
            if "path" in case:
                yield f"{platform}: {case}, none longer", _without_long(replace(healthy, folders=folders))
            yield f"{platform}: {case}", replace(healthy, folders=folders)
        for number, row in enumerate(BROKEN_ADAPTERS):
            yield f"{platform}: {row[0]} {number}", replace(healthy, adapters=row[1])
        for case, adapters in ADAPTERS.items():
            yield f"{platform}: adapter, {case}", replace(healthy, adapters=adapters)


def _without_long(environment: Environment) -> Environment:
    return _changed(environment, {"machine": {"long_paths": False}})


def _with(folders: tuple[Folder, ...], role: str, change: dict[str, Any]) -> tuple[Folder, ...]:
    return tuple(replace(folder, **change) if folder.role == role else folder for folder in folders)


def answers() -> dict[str, Any]:
    """Return verdicts that differ from those of the same healthy machine, by case, purpose and check."""
    found: dict[str, Any] = {}
    healthy: dict[str, Any] = {}
    for case, environment in environments():
        platform = case.partition(":")[0]
        for kind, wanted in PURPOSES.items():
            for finding in judge(checks(), environment, wanted):
                name = f"{platform} {kind} {finding.id}"
                if case.endswith(": healthy"):
                    healthy[name] = finding.verdict
                elif finding.verdict == healthy.get(name):
                    continue
                text = json.dumps(asdict(finding.verdict), default=str).replace(str(ROOT), "CHECKOUT")
                verdict = json.loads(text)
                # What all purposes hear in the same words stands there once.
                same = found.get(f"{case} | {finding.id}")
                if verdict != same:
                    key = f"{case} | {finding.id}" + ("" if same is None else f" | {kind}")
                    found[key] = verdict
    return found


def test_answers_are_those_that_were_read() -> None:
    known, found = json.loads(ANSWERS.read_text("utf-8")), answers()
    assert {name: found.get(name) for name in known} == known
    assert found.keys() == known.keys()


def test_every_command_of_sdsetup_is_one_that_it_takes() -> None:
    verdicts = json.loads(ANSWERS.read_text("utf-8")).values()
    typed = {command for verdict in verdicts if verdict["fix"] for command in verdict["fix"]["commands"]}
    calls = [
        shlex.split(command.partition("-m sdsetup ")[2]) for command in typed if "-m sdsetup " in command
    ]
    assert len(calls) > 10
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for verb, *arguments in calls:
        commands[verb].make_context(verb, arguments)  # wrong usage is raised


if __name__ == "__main__":
    lines = (f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers().items())
    ANSWERS.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")

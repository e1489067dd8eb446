"""Facts that were not read are unknown: neither good nor bad."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from sdsetup.machine import facts
from sdsetup.machine.facts import Environment, Folder, Hub, Machine, Plan, ProviderTrial, Python, Questions

# What is assumed where a fact is absent; all others are empty, None, False or nought.
ASSUMED: dict[type, dict[str, Any]] = {
    Machine: {"cores": 1},
    Python: {"bits": 64, "implementation": "CPython", "environment_state": "absent", "has_ensurepip": True},
    Hub: {"default_endpoint": True, "reach": "offline", "token_state": "none"},
    Plan: {"converting": True},
    Environment: {"shell": "sh", "command": ("python", "-m", "sdsetup")},
}
GIVEN: dict[type, dict[str, Any]] = {
    Machine: {"platform": "linux"},
    Python: {"version": (3, 12, 0)},
    Folder: {"role": "cache", "path": "/data"},
    ProviderTrial: {"provider": "CPUExecutionProvider"},
    Hub: {"endpoint": "https://huggingface.co"},
    Questions: {"output": Path("packages")},
}
KINDS = (
    *(Machine, Python, Folder, facts.Packages, facts.Imports, ProviderTrial, facts.Runtime, facts.Tools),
    *(Hub, Plan, Environment, Questions),
)
EMPTY: dict[str, Any] = {
    "str": "",
    "int": 0,
    "float": 0.0,
    "bool": False,
    "frozenset": frozenset(),
    "tuple": (),
    "Mapping": {},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_absent_is_unknown(kind: Any) -> None:
    made = kind(**GIVEN.get(kind, {}))
    for field in fields(kind):
        if field.name in GIVEN.get(kind, {}):
            assert field.default is field.default_factory is MISSING
            continue
        text = str(field.type)
        empty = None if "None" in text else EMPTY[text.partition("[")[0]]
        expected = ASSUMED.get(kind, {}).get(field.name, empty)
        found = getattr(made, field.name)
        assert (found, type(found)) == (expected, type(expected)), field.name

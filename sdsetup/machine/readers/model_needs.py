"""What the model asked about needs, reckoned in a process of its own: it may hang or be torn."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdsetup.bootstrap import child_environment
from sdsetup.machine.facts import Plan, Questions

# Cold files on a slow disk behind a virus scanner take most of it.
_LIMIT_SECONDS = 60.0
_ROOT = Path(__file__).resolve().parents[3]


def read(questions: Questions) -> Plan:
    """Plan a conversion or forecast a package; nothing large moves, pickles stay closed."""
    asked = Plan(model=questions.converting or questions.drawing, converting=bool(questions.converting))
    if not asked.model:
        return Plan()
    # This copy of the project, wherever the other process would find one.
    variables = child_environment.for_python(str(_ROOT))
    if questions.offline:
        variables["HF_HUB_OFFLINE"] = "1"
    use = "convert" if asked.converting else "generate"
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "sdsetup.machine.readers.model_needs_worker", use, asked.model],
            capture_output=True, encoding="utf-8", errors="replace", timeout=_LIMIT_SECONDS, check=False,
            stdin=subprocess.DEVNULL, env=variables,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return replace(asked, error=f"no plan within {_LIMIT_SECONDS:g} s")
    plan = _understood(asked, answer)
    if questions.offline and plan.code == "hub.offline":
        return replace(plan, error=f"--offline, and the cache holds nothing of {plan.model}")
    return plan


def _understood(asked: Plan, answer: subprocess.CompletedProcess[str]) -> Plan:
    try:
        document: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
        return replace(asked, **document)
    except (ValueError, IndexError, TypeError):
        said = answer.stderr.strip().splitlines()
        crash = f"planning ended with {answer.returncode}" + (f": {said[-1][:300]}" if said else "")
        return replace(asked, error=crash)

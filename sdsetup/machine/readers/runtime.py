"""ONNX Runtime as it really works here: each provider and adapter runs a tiny graph in its own process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sdsetup.bootstrap import child_environment
from sdsetup.machine import adapters
from sdsetup.machine.facts import ProviderTrial, Questions, Runtime

_TRIAL = Path(__file__).with_name("trial.py")
_LIMIT_SECONDS = 30.0

# Providers that stand for other machines or need more than a session to be tried.
_UNTRIED = {"CPUExecutionProvider", "AzureExecutionProvider"}


def read(_questions: Questions) -> Runtime:
    """Import ONNX Runtime and run the tiny graph on everything it lists."""
    if importlib.util.find_spec("onnxruntime") is None:
        return Runtime(import_error="No module named 'onnxruntime'")
    listed = _start()
    if "import_error" in listed:
        return Runtime(import_error=str(listed["import_error"]))
    providers = tuple(str(provider) for provider in listed.get("providers", ()))
    wanted = [
        (provider, device)
        for provider in providers
        if provider not in _UNTRIED
        for device in (_devices() if provider == "DmlExecutionProvider" else (None,))
    ]
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        trials = list(pool.map(lambda pair: _trial(*pair), wanted))
    directml = listed.get("directml", {})
    return Runtime(
        version=str(listed.get("version", "")),
        providers=providers,
        directml_version=str(directml.get("version", "")),
        directml_path=str(directml.get("path", "")),
        trials=(_understood("CPUExecutionProvider", None, listed.get("cpu", {})), *trials),
    )


def _devices() -> Sequence[int]:
    return [adapter.index for adapter in adapters.read() if not adapter.software] or [0]


def _trial(provider: str, device: int | None) -> ProviderTrial:
    arguments = (provider,) if device is None else (provider, str(device))
    return _understood(provider, device, _start(*arguments))


def _understood(provider: str, device: int | None, answer: dict[str, Any]) -> ProviderTrial:
    return ProviderTrial(
        provider=provider,
        device=device,
        error=str(answer.get("error", answer.get("import_error", ""))),
        seconds=float(answer.get("seconds", 0.0)),
        largest_error=float(answer.get("largest_error", 0.0)),
    )


def _start(*arguments: str) -> dict[str, Any]:
    try:
        answer = subprocess.run(
            [sys.executable, "-P", str(_TRIAL), *arguments],
            capture_output=True, text=True, errors="replace", timeout=_LIMIT_SECONDS, check=False,
            stdin=subprocess.DEVNULL, env=child_environment.for_python(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {
            "import_error": f"no answer within {_LIMIT_SECONDS:g} s",
            "error": f"no answer within {_LIMIT_SECONDS:g} s",
        }
    try:
        document = json.loads(answer.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        said = answer.stderr.strip().splitlines()
        crash = f"the process ended with {answer.returncode}" + (f": {said[-1][:300]}" if said else "")
        return {"import_error": crash, "error": crash}
    return document if isinstance(document, dict) else {}

"""Whether the packages that a purpose needs can be imported, tried in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from sdsetup.bootstrap import child_environment, foreign_paths
from sdsetup.machine.facts import Imports, Questions

_WORKER = Path(__file__).with_name("imports_worker.py")
_LIMIT_SECONDS = 90.0

# What sdsetup imports on its way to an image, and its own modules that do so.
_CORE = (
    *("typer", "rich.console", "rich.progress", "huggingface_hub", "httpx2", "socksio", "hf_xet", "numpy"),
    *("safetensors.numpy", "onnx", "onnx_ir", "psutil", "platformdirs", "PIL.Image", "tokenizers"),
    *("filelock", "conversions.conversion", "conversions.verification.parity", "sdsetup.workflow"),
    *("sdsetup.cli.app", "sdsetup.cli.generate", "sdsetup.cli.convert", "sdsetup.cli.install"),
    *("sdsetup.imaging.pipeline", "sdsetup.imaging.smoke_test", "sdsetup.runtime.start"),
    *("sdsetup.hub.session", "sdsetup.hub.download"),
)
# What tracing and comparing with PyTorch import.
_TORCH = (
    *("torch", "diffusers", "transformers", "onnxscript.optimizer", "conversions.graphs.export_rewrites"),
    "conversions.verification.reference",
)
# diffusers and transformers load their classes late; these take seconds more.
_CLASSES = ("conversions.family:load_component_classes()",)


def read(questions: Questions) -> Imports:
    """Import everything; a package that is not installed at all is told by ``packages``, not here."""
    converting = questions.importing and find_spec("torch") is not None
    wanted = [*_CORE, *(_TORCH if converting else ())]
    wanted += _CLASSES if converting and questions.importing == "classes" else ()
    try:
        answer = subprocess.run(
            [sys.executable, "-P", str(_WORKER), *wanted],
            env=child_environment.for_python(foreign_paths.ROOT), capture_output=True, encoding="utf-8",
            errors="replace", timeout=_LIMIT_SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode("utf-8", "replace") if isinstance(late.stdout, bytes) else ""
        return _understood(wanted, said, f"no answer within {_LIMIT_SECONDS:g} s")
    crash = answer.stderr.strip().splitlines()[-1:] or [""]
    return _understood(
        wanted, answer.stdout, f"the process ended with {answer.returncode} {crash[0]}".strip()
    )


def _understood(wanted: Sequence[str], printed: str, end: str) -> Imports:
    """Read what the worker printed: a module without an answer is the one that ended it."""
    failed: dict[str, str] = {}
    answered: set[str] = set()
    for line in printed.splitlines():
        try:
            name, error = json.loads(line)
        except ValueError:
            continue
        answered.add(name)
        if error:
            failed[name] = error
    left = [name for name in wanted if name not in answered]
    if left:
        failed[left[0]] = end
    return Imports(tried=len(wanted), failed=failed)

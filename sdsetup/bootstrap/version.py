"""``sdsetup --version``, and what a report of a fault needs: ``sdsetup --version --verbose``.

Standard library only: it answers on a bare Python too.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence

from sdsetup import __version__
from sdsetup.bootstrap import integrity, known_good, places
from sdsetup.bootstrap.installer import FLAVOUR_DISTRIBUTIONS


def asked(arguments: Sequence[str]) -> bool:
    """Tell whether a command line asks for the version and nothing else."""
    return "--version" in arguments and set(arguments) <= {"--version", "--verbose"}


def lines(*, verbose: bool) -> list[str]:
    """Write the version; verbose with Python, system, environment and the packages that decide results."""
    if not verbose:
        return [f"sdsetup {__version__}"]
    source, environment = places.checkout(), places.environment_folder()
    site = next(iter(places.sites(environment)), None)
    infos = integrity.installed(site) if site is not None else {}
    pinned = known_good.versions()
    told = [
        f"sdsetup {__version__}",
        f"python {platform.python_version()} ({platform.python_implementation()}, {sys.executable})",
        f"system {platform.platform()}",
        f"source {source if source is not None else 'installed'}",
        f"environment {environment}{'' if environment.exists() else ' (not made yet)'}",
    ]
    for name in _TOLD:
        if name in infos:
            version = integrity.version(infos[name][0])
            other = pinned.get(name, "")
            tested = "" if version.partition("+")[0] == other or not other else f" (tested with {other})"
            told.append(f"{name} {version}{tested}")
    return told


_TOLD = (
    *FLAVOUR_DISTRIBUTIONS.values(),
    *("onnxruntime-ep-webgpu", "onnx", "onnx-ir", "numpy", "huggingface-hub"),
    *("torch", "diffusers", "transformers"),
)

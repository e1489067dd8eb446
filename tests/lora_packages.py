"""Packages of tiny checkpoints, with adapters merged at conversion or when images are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conversions.checkpoint.folder import open_folder
from conversions.conversion import convert
from conversions.events import ignore
from conversions.options import Options
from conversions.plan import make_plan
from conversions.weights.lora.request import AdapterRequest
from conversions.weights.lora.with_adapters import with_adapters
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime.adapters import open_adapters
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.textual_inversion import open_embeddings
from tests.sdsetup.imaging.test_pipeline import cpu
from tests.traced import trace_once


def make_package_with(
    checkpoint: Path,
    output: Path,
    graph_cache: Path,
    requests: Sequence[AdapterRequest] = (),
    *,
    precision: str = "fp32",
) -> Path:
    """Convert a checkpoint with adapters, without verification."""
    trace_once(open_folder(checkpoint), graph_cache)
    opened = with_adapters(open_folder(checkpoint), requests).checkpoint
    plan = make_plan(opened, Options(target="cpu", precision=precision), graph_cache)
    convert(plan, opened, output, tool_version="test", graph_cache=graph_cache, checks=None, listener=ignore)
    return output


def drawn(
    folder: Path,
    request: Request,
    requests: Sequence[AdapterRequest] = (),
    embeddings: Sequence[Path] = (),
) -> NDArray[np.uint8]:
    """Make one image with a package, with adapters and embeddings added when its submodels are opened."""
    package = open_for_images(folder)
    adapters = replace(open_adapters(package, requests), embeddings=open_embeddings(package, embeddings))
    runner = LocalRunner(package=package, device=cpu(), adapters=adapters)
    pipeline = Pipeline(package=package, runner=runner, tokens=adapters.embeddings.tokens)
    return pipeline.generate(request, check_safety=False).pixels[0]

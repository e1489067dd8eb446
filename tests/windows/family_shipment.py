"""What is made on Linux for the tests of families on DirectML: a folder for each tiny checkpoint.

FOLDER/families/NAME/package                  float16, made for DirectML, not verified
FOLDER/families/NAME/package-int4             the same with weights of 4 bits
FOLDER/families/NAME/reference/SUBMODEL.npz   the same checkpoint in float32 on Linux's CPU provider:
                                              ``in.NAME`` and ``out.NAME`` tensors, ``size.NAME`` of sizes
FOLDER/families/NAME/images/TASK.json, .npy   a request, and the image that float32 on the CPU makes of it
FOLDER/families/image.png, mask.png           what requests start from
FOLDER/demo-int4                              the demo with weights of 4 bits, verified
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conversions.package.layout import Package
from sdsetup.imaging.request import Request

SHOWN_AS = "/data/families"
"""Where Windows Python sees ``FOLDER/families``."""

STEPS = 4
SIDES = {"width": 64, "height": 96}


def make(folder: Path, only: Collection[str] = (), *, int4: bool = True) -> None:
    """Make the packages and the answers to look for.

    Args:
        folder: An existing folder to fill.
        only: Names of ``tests.checkpoints.VARIANTS``; all of them, and the demo, when empty.
        int4: Whether to make packages with weights of 4 bits too.
    """
    from tests.checkpoints import VARIANTS

    families = folder / "families"
    families.mkdir()
    _write_initial(families)
    for name in only or VARIANTS:
        _make_family(families, name, int4=int4)
    if not only:
        _make_demo(folder / "demo-int4")


def _make_family(families: Path, name: str, *, int4: bool) -> None:
    from conversions.checkpoint.folder import open_folder
    from conversions.conversion import convert
    from conversions.events import ignore
    from conversions.options import Options
    from conversions.package.layout import open_package
    from conversions.plan import make_plan
    from tests.checkpoints import VARIANTS, make_variant
    from tests.traced import trace_once

    folder = families / name.replace(" ", "-")
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = open_folder(make_variant(Path(temporary) / "checkpoint", VARIANTS[name]))
        # In this process: the libraries are imported once for all families.
        traced = Path(temporary) / "graphs"
        trace_once(checkpoint, traced)
        exact = Path(temporary) / "exact"
        wanted = {
            folder / "package": Options(target="directml", precision="fp16"),
            exact: Options(target="cpu", precision="fp32"),
        }
        if int4:
            wanted[folder / "package-int4"] = Options(target="directml", precision="int4")
        for output, options in wanted.items():
            plan = make_plan(checkpoint, options, traced)
            convert(
                plan,
                checkpoint,
                output,
                tool_version="test",
                graph_cache=traced,
                checks=None,
                listener=ignore,
            )
        _write_references(open_package(exact), folder / "reference")
        _write_images(open_package(exact), folder / "images", families)


def _make_demo(output: Path) -> None:
    from conversions.events import ignore
    from conversions.options import Options
    from sdsetup.checkpoint_source import CheckpointRequest
    from sdsetup.workflow import ConvertRequest, convert_model

    request = ConvertRequest(
        checkpoint_request=CheckpointRequest(model="demo"),
        options=Options(target="directml", precision="int4"),
        output=output,
    )
    convert_model(request, ignore)


def _write_references(package: Package, folder: Path) -> None:
    """Note what each submodel answers on the CPU."""
    from conversions.providers import onnx_session
    from conversions.providers.devices import CPU
    from conversions.verification.reference import make_inputs

    folder.mkdir()
    for submodel in package.submodels:
        kind = submodel.kind
        inputs = make_inputs(kind, package.config(submodel.name), kind.sizes)
        outcome = onnx_session.run(package.graph(submodel.name), inputs, CPU, kind.sizes)
        arrays: dict[str, Any] = {
            **{f"in.{name}": tensor for name, tensor in inputs.items()},
            **{f"out.{name}": tensor for name, tensor in outcome.outputs.items()},
            **{f"size.{name}": size for name, size in kind.sizes.items()},
        }
        np.savez(folder / f"{submodel.name}.npz", **arrays)


def _write_images(package: Package, folder: Path, families: Path) -> None:
    """Make an image of each task on the CPU."""
    from conversions.providers.devices import CPU
    from sdsetup.imaging.pipeline import Pipeline
    from sdsetup.runtime.runner import LocalRunner

    folder.mkdir()
    pipeline = Pipeline(package=package, runner=LocalRunner(package=package, device=CPU))
    for here, there in zip(requests(package, str(families)), requests(package, SHOWN_AS), strict=True):
        (folder / f"{here.task}.json").write_text(json.dumps(asdict(there)), encoding="utf-8")
        np.save(folder / f"{here.task}.npy", pipeline.generate(here, check_safety=False).pixels)


def requests(package: Package, home: str) -> Iterator[Request]:
    """Return a request for each task that a package can do; ``home`` holds the image and the mask."""
    inputs: dict[str, dict[str, Any]] = {
        "text-to-image": {},
        "image-to-image": {"init_image": f"{home}/image.png", "strength": 0.7},
        "inpainting": {"init_image": f"{home}/image.png", "mask": f"{home}/mask.png"},
    }
    for task in sorted(package.recipe.tasks):
        yield Request(
            prompt="a red horse on the moon", negative_prompt="", seed=5, steps=STEPS, **SIDES, **inputs[task]
        )


def _write_initial(folder: Path) -> None:
    size = (SIDES["width"], SIDES["height"])
    coarse = np.random.default_rng(3).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size).save(folder / "image.png")
    hidden = np.zeros(size[::-1], np.uint8)
    hidden[16:56, 16:48] = 255
    Image.fromarray(hidden).save(folder / "mask.png")

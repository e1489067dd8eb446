"""Parity of full-size packages with PyTorch: ``python -m tests.benchmarks.parity WORK``; WORK needs 14 GB.

Converts the checkpoint of SD 1.4's true size (``tests.benchmarks.full_size``) in both precisions and compares
every submodel with PyTorch in float32, on ONNX Runtime's CPU provider: at its own sizes, and at latents of
96x64, a batch of 3, and 154 tokens for the U-Net. Prints one JSON object, PSNR in dB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from conversions.checkpoint.folder import open_folder
from conversions.events import ignore
from conversions.package.layout import open_package
from conversions.providers.devices import CPU
from conversions.verification.parity import verify
from conversions.verification.reference import make_inputs
from conversions.verification.references import run_references
from tests.benchmarks import full_size, process_tree

LATENTS = {"batch": 3, "height": 96, "width": 64}
SIZES = {
    "text_encoder": {"batch": 3, "sequence": 77},
    "unet": {**LATENTS, "sequence": 154},
    "vae_encoder": {"batch": 3, "height": 8 * 96, "width": 8 * 64},
    "vae_decoder": LATENTS,
}


def measure(work: Path) -> dict[str, Any]:
    """Compare at both sets of sizes; PyTorch runs once for both precisions."""
    checkpoint_folder = work / "sd14"
    if not (checkpoint_folder / "model_index.json").exists():
        full_size.make_sd14(checkpoint_folder)
    packages = {precision: _convert(checkpoint_folder, work, precision) for precision in ("fp32", "fp16")}
    checkpoint = open_folder(checkpoint_folder)
    submodels = {submodel.name: submodel for submodel in checkpoint.submodels}
    rows: dict[str, Any] = {}
    for name, submodel in submodels.items():
        for label, sizes in (("own sizes", submodel.kind.sizes), ("96x64, 3, 154", SIZES.get(name))):
            if sizes is None:
                continue
            began = time.monotonic()
            mine = {name: submodel}
            config = checkpoint.config_of(submodel)
            inputs = {name: make_inputs(submodel.kind, config, {**submodel.kind.sizes, **sizes})}
            references = run_references(mine, checkpoint, inputs, {name: {} for name in mine}, ignore)
            for precision, package in packages.items():
                report = verify(
                    open_package(package),
                    None,
                    device=CPU,
                    only=mine,
                    sizes=sizes,
                    references=references,
                    listener=ignore,
                ).submodels[0]
                assert report.parity is not None
                rows.setdefault(name, {}).setdefault(label, {})[precision] = {
                    "psnr_db": min(report.parity.psnr_db, 999.0),
                    "problems": list(report.problems),
                }
            print(name, label, rows[name][label], f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return {"benchmark": "parity", "submodels": rows, "machine": process_tree.machine()}


def _convert(checkpoint: Path, work: Path, precision: str) -> Path:
    package = work / f"parity-{precision}"
    if not (package / "manifest.json").exists():
        subprocess.run(
            [sys.executable, "-m", "sdsetup", "convert", str(checkpoint), "--target", "cpu", "--precision",
             precision, "--no-verify", "--output", str(package)],
            check=True,
        )  # fmt: skip
    return package


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1])), indent=1))

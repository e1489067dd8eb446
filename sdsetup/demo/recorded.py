"""PyTorch's outputs for the demo checkpoint, which ship: a reference without PyTorch has to agree.

``python -m tests.demo_training.record_outputs`` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conversions.events import Finished, Listener, Started
from sdsetup import demo
from sdsetup.errors import SetupError

if TYPE_CHECKING:
    from conversions.verification.reference import Arrays

OUTPUTS = Path(__file__).with_name("pytorch_outputs.npz")
"""Arrays named ``SUBMODEL/input/NAME`` and ``SUBMODEL/output/NAME``."""

LEAST_DB = 100.0
"""Least PSNR; float32 sums in another order cost these submodels 120 to 150 dB, measured on two CPUs."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What PyTorch gave for one submodel of the demo.

    Attributes:
        inputs: By name.
        outputs: By name, float32 or bool.
    """

    inputs: Arrays
    outputs: Arrays


def load(path: Path = OUTPUTS) -> dict[str, Recorded]:
    """Read what is recorded, by submodel."""
    import numpy as np

    found: dict[str, Recorded] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            submodel, kind, name = re.split("/", key, maxsplit=2)
            recorded = found.setdefault(submodel, Recorded(inputs={}, outputs={}))
            (recorded.inputs if kind == "input" else recorded.outputs)[name] = arrays[key]
    return found


def check_evaluation(listener: Listener) -> Mapping[str, float]:
    """Evaluate the demo's graphs in float32 and compare with PyTorch's recorded outputs.

    Args:
        listener: Told of the progress.

    Returns:
        PSNR in dB by submodel.

    Raises:
        SetupError: ``verify.evaluation``: one does not agree, so this machine's ONNX Runtime computes
            something else, and cannot be a reference.
        ConversionError: The process died.
    """
    from conversions import open_checkpoint
    from conversions.verification.metrics import compare
    from conversions.verification.references import run_references

    checkpoint, recorded = open_checkpoint(demo.checkpoint_path()), load()
    submodels = {each.name: each for each in checkpoint.submodels if each.name in recorded}
    listener(Started(task="demo", label="comparing the demo with PyTorch's recorded outputs"))
    found = run_references(
        submodels,
        checkpoint,
        {name: recorded[name].inputs for name in submodels},
        {name: {} for name in submodels},
        lambda _: None,
        kind="float32_graph",
    )
    psnr = {
        name: min(
            compare(found[name].outputs[output], expected).psnr_db
            for output, expected in recorded[name].outputs.items()
        )
        for name in submodels
    }
    worst = min(psnr, key=lambda name: psnr[name])
    listener(Finished(task="demo", note=f"{psnr[worst]:.0f} dB and more"))
    if not psnr[worst] >= LEAST_DB:
        raise SetupError(
            "verify.evaluation",
            f"ONNX Runtime's CPU provider does not compute what PyTorch did for the demo: its {worst} agrees "
            f"to {psnr[worst]:.0f} dB, and {LEAST_DB:.0f} dB are required. So nothing is compared with it.",
            "Run sdsetup doctor; with PyTorch (sdsetup install --torch) that is the reference instead.",
        )
    return psnr

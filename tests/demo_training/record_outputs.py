"""Record PyTorch's outputs for the demo checkpoint: ``python -m tests.demo_training.record_outputs``.

They ship (``sdsetup/demo/recorded.py``), so that a machine without PyTorch can compare with them.
"""

from __future__ import annotations

import numpy as np

from conversions import open_checkpoint
from conversions.events import ignore
from conversions.verification.reference import Arrays, make_inputs
from conversions.verification.references import run_references
from sdsetup import demo
from sdsetup.demo.recorded import OUTPUTS

# Small, so that the file is: a free dimension of each graph, by submodel.
SIZES = {
    "text_encoder": {"batch": 2, "sequence": 77},
    "unet": {"batch": 2, "height": 16, "width": 8, "sequence": 77},
    "vae_encoder": {"batch": 1, "height": 64, "width": 96},
    "vae_decoder": {"batch": 1, "height": 8, "width": 12},
}


def computed() -> dict[str, tuple[Arrays, Arrays]]:
    """Run PyTorch on every submodel of the demo; gives inputs and outputs."""
    checkpoint = open_checkpoint(demo.checkpoint_path())
    submodels = {each.name: each for each in checkpoint.submodels}
    inputs = {
        name: make_inputs(each.kind, checkpoint.config_of(each), SIZES[name])
        for name, each in submodels.items()
    }
    nothing = {name: {} for name in submodels}
    found = run_references(submodels, checkpoint, inputs, nothing, ignore, kind="pytorch")
    return {name: (inputs[name], found[name].outputs) for name in submodels}


if __name__ == "__main__":
    arrays = {
        f"{submodel}/{kind}/{name}": array
        for submodel, both in computed().items()
        for kind, named in zip(("input", "output"), both, strict=True)
        for name, array in named.items()
    }
    np.savez_compressed(OUTPUTS, **arrays)

"""The graphs that a package will have, before its conversion: to tell what it will need."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from conversions import graphs
from conversions.checkpoint.folder import Checkpoint
from conversions.conversion import adapt
from conversions.options import Options
from conversions.plan import wanted_submodels

# Of a U-Net's configuration that names no size, and of the image that a latent pixel stands for.
_LATENT_SIDE = 64
_PIXELS = 8


def planned_graphs(
    checkpoint: Checkpoint, options: Options, graph_cache: Path | None
) -> dict[str, ir.Model] | None:
    """Return the graphs of a conversion in the form that its target and precision want, without weights.

    Args:
        checkpoint: Its configurations alone are read.
        options: Name the target and the precision.
        graph_cache: Folder of this user's traced graphs; None keeps none.

    Returns:
        A graph for each submodel, by name; None while one is still to be traced.

    Raises:
        ConversionError: ``placement.no_kernel``; the target has no kernel for a node.
    """
    models = {}
    for submodel in wanted_submodels(checkpoint, options):
        config = checkpoint.components[submodel.component].config
        model = graphs.find(submodel, config, graph_cache)
        if model is None:
            return None
        adapt(model, submodel, config, options)
        models[submodel.name] = model
    return models


def trained_side(checkpoint: Checkpoint) -> int:
    """Return the width and height, in pixels, of the images that a checkpoint was trained on."""
    latent = checkpoint.components["unet"].config.get("sample_size")
    return _PIXELS * (latent if isinstance(latent, int) else _LATENT_SIDE)

"""The memory that a package will need, told before the conversion from graphs that are ready."""

from __future__ import annotations

from pathlib import Path

from conversions import graphs
from conversions.checkpoint import Checkpoint
from conversions.convert import adapt
from conversions.forecast import Forecast, forecast
from conversions.options import Options
from conversions.plan import wanted_submodels

# Of a U-Net's configuration that names no size, and of the picture that a latent pixel stands for.
_LATENT_SIDE = 64
_PIXELS = 8


def planned_memory(checkpoint: Checkpoint, options: Options, graph_cache: Path | None) -> Forecast | None:
    """Forecast a package's memory at the picture size that its checkpoint was trained for.

    Args:
        checkpoint: Its configurations alone are read.
        options: Name the target and the precision.
        graph_cache: Folder of this user's traced graphs; None keeps none.

    Returns:
        The forecast; None while a graph is still to be traced.

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
    latent = checkpoint.components["unet"].config.get("sample_size")
    side = _PIXELS * (latent if isinstance(latent, int) else _LATENT_SIDE)
    return forecast(models, width=side, height=side)

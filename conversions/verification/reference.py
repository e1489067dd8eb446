"""PyTorch in float32 on the same weights: what every submodel is measured against.

Runs in a process of its own; it is the only part of verification that needs torch. The weights are loaded by
diffusers and transformers themselves, so that a mistake in our own names or renames shows.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conversions.checkpoint.weight_files import WeightFiles
from conversions.graph_kind import Config, GraphKind
from conversions.graphs.untraceable import naming_component

Tensors = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What PyTorch gave.

    Attributes:
        outputs: By name, float32 or bool.
        largest: Largest magnitude of any number on the way to them, attention scores included.
    """

    outputs: Tensors
    largest: float


def make_inputs(submodel: GraphKind, config: Config, sizes: Mapping[str, int], seed: int = 0) -> Tensors:
    """Make inputs for a submodel, float32 values that float16 can hold.

    Args:
        submodel: The submodel.
        config: The component's configuration.
        sizes: A size for each free dimension.
        seed: Of the numpy generator.
    """
    random = np.random.default_rng(seed)
    inputs: Tensors = {}
    for spec in submodel.inputs(config):
        shape = tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)
        if spec.name in submodel.example:
            inputs[spec.name] = submodel.example[spec.name](config, shape, random)
        else:
            inputs[spec.name] = random.standard_normal(shape)
        if spec.dtype == "float":
            inputs[spec.name] = inputs[spec.name].astype(np.float16).astype(np.float32)
    return inputs


def run_reference(
    submodel: GraphKind, config: Config, checkpoint: Path, weights: WeightFiles, inputs: Tensors
) -> Reference:
    """Run a submodel in PyTorch.

    Args:
        submodel: The submodel.
        config: The component's configuration.
        checkpoint: The checkpoint's folder.
        weights: The files that the package was made of.
        inputs: As ``make_inputs`` gives them.
    """
    import torch

    from conversions.verification.activation_range import ActivationRange

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        with naming_component(submodel.component):
            component = submodel.component_class().from_pretrained(
                checkpoint / submodel.component,
                torch_dtype=torch.float32,
                use_safetensors=weights.format == "safetensors",
                variant=weights.variant or None,
                local_files_only=True,
            )
        module = submodel.wrap(component).eval()
        with ActivationRange() as activations:
            results = module(*(torch.from_numpy(inputs[spec.name]) for spec in submodel.inputs(config)))
    values = results if isinstance(results, tuple) else (results,)
    specs = submodel.outputs(config)
    return Reference(
        outputs={spec.name: value.numpy() for spec, value in zip(specs, values, strict=True)},
        largest=activations.largest,
    )

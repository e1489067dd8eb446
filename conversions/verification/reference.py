"""Run the PyTorch reference: each submodel in float32 on the checkpoint's weights.

Runs in a child process; it is the only part of verification that needs torch. The weights are loaded by
diffusers and transformers themselves, so that an error in this project's tensor names is found.
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
from conversions.graphs.untraceable import naming_class
from conversions.verification.fp16_overflow import ActivationRange

Tensors = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Result of the PyTorch run.

    Attributes:
        outputs: By name, float32 or bool.
        largest: Largest magnitude of any activation, attention scores included.
        largest_deviation: Largest standard deviation of what a norm normalised together.
    """

    outputs: Tensors
    largest: float
    largest_deviation: float


def make_inputs(kind: GraphKind, config: Config, sizes: Mapping[str, int], seed: int = 0) -> Tensors:
    """Make inputs for a submodel, float32 values that float16 can hold.

    Args:
        kind: Of the submodel.
        config: The component's configuration.
        sizes: A size for each free dimension.
        seed: Seed of the numpy generator.
    """
    random = np.random.default_rng(seed)
    inputs: Tensors = {}
    for spec in kind.inputs(config):
        shape = tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)
        if spec.name in kind.example:
            inputs[spec.name] = kind.example[spec.name](config, shape, random)
        else:
            inputs[spec.name] = random.standard_normal(shape)
        if spec.dtype == "float":
            inputs[spec.name] = inputs[spec.name].astype(np.float16).astype(np.float32)
    return inputs


def run_reference(
    kind: GraphKind, config: Config, component: Path, weights: WeightFiles, inputs: Tensors
) -> Reference:
    """Run a submodel in PyTorch.

    Args:
        kind: Of the submodel.
        config: The component's configuration.
        component: The component's folder in the checkpoint.
        weights: The files that the package was made of.
        inputs: As ``make_inputs`` gives them.
    """
    import torch

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        with naming_class(kind.class_name):
            model = kind.component_class().from_pretrained(
                component,
                torch_dtype=torch.float32,
                use_safetensors=weights.format == "safetensors",
                variant=weights.variant or None,
                local_files_only=True,
            )
        module = kind.wrap(model).eval()
        with ActivationRange() as activations:
            results = module(*(torch.from_numpy(inputs[spec.name]) for spec in kind.inputs(config)))
    values = results if isinstance(results, tuple) else (results,)
    specs = kind.outputs(config)
    return Reference(
        outputs={spec.name: value.numpy() for spec, value in zip(specs, values, strict=True)},
        largest=activations.largest,
        largest_deviation=activations.largest_deviation,
    )

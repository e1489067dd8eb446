"""Run the PyTorch reference: each submodel in float32 on the checkpoint's weights.

Runs in a child process; it is the only part of verification that needs torch. A folder's weights are loaded
by diffusers and transformers themselves, so that an error in this project's tensor names is found.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from conversions.checkpoint.weight_files import WeightFiles
from conversions.errors import ConversionError
from conversions.graph_kind import Config, GraphKind
from conversions.graphs.untraceable import naming_class
from conversions.verification.fp16_overflow import ActivationRange
from conversions.verification.layerwise import in_float32, uninitialised
from conversions.weights.binding import match_names
from conversions.weights.expression import Expression, evaluate_range
from conversions.weights.read_numbers import read_numbers

if TYPE_CHECKING:
    import torch

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class FolderWeights:
    """Weights that diffusers and transformers load by themselves.

    Attributes:
        folder: The component's folder.
        files: The files that the package was made of.
    """

    folder: Path
    files: WeightFiles


@dataclass(frozen=True, kw_only=True)
class ExpressionWeights:
    """Weights that are not left to the libraries to load.

    These are those that no folder holds as they are (of a single file, or with adapters merged), and those of
    models so large that they are kept in the type they are stored in.

    Attributes:
        tensors: By the names that diffusers and transformers give them.
        paths: Where each file of the checkpoint lies, by its name.
        dtype: Type in which they are kept, as torch names it; layers compute in float32 whatever it is.
    """

    tensors: Mapping[str, Expression]
    paths: Mapping[str, Path]
    dtype: str = "float32"


ReferenceWeights: TypeAlias = FolderWeights | ExpressionWeights


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Result of the PyTorch run.

    Attributes:
        outputs: By name, float32 or bool; with the weights that quantised ones stand for.
        unquantized: The same with the checkpoint's own weights; None where none is quantised.
        largest: Largest magnitude of any activation, attention scores included.
        largest_deviation: Largest standard deviation of what a norm normalised together.
    """

    outputs: Arrays
    unquantized: Arrays | None
    largest: float
    largest_deviation: float


def make_inputs(kind: GraphKind, config: Config, sizes: Mapping[str, int], seed: int = 0) -> Arrays:
    """Make inputs for a submodel, float32 values that float16 can hold.

    Args:
        kind: Of the submodel.
        config: The component's configuration.
        sizes: A size for each free dimension.
        seed: Seed of the numpy generator.
    """
    random = np.random.default_rng(seed)
    inputs: Arrays = {}
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
    kind: GraphKind,
    config: Config,
    weights: ReferenceWeights,
    inputs: Arrays,
    quantized: Mapping[str, str] = MappingProxyType({}),
) -> Reference:
    """Run a submodel in PyTorch.

    Args:
        kind: Of the submodel.
        config: The component's configuration.
        weights: The component's weights.
        inputs: As ``make_inputs`` gives them.
        quantized: Precisions of the weights that the package holds quantised, by name.
    """
    import torch

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        with naming_class(kind.class_name):
            if isinstance(weights, FolderWeights):
                model = kind.component_class().from_pretrained(
                    weights.folder,
                    torch_dtype=torch.float32,
                    use_safetensors=weights.files.format == "safetensors",
                    variant=weights.files.variant or None,
                    local_files_only=True,
                )
            else:
                with uninitialised(getattr(torch, weights.dtype)):
                    model = kind.create(config)
                _fill(model, kind, weights)
        module = (kind.reference or kind.wrap)(model).eval()

        def run() -> Arrays:
            results = module(*(torch.from_numpy(inputs[spec.name]) for spec in kind.inputs(config)))
            values = results if isinstance(results, tuple) else (results,)
            return {
                spec.name: value.numpy() for spec, value in zip(kind.outputs(config), values, strict=True)
            }

        unquantized = None
        if quantized:
            with in_float32(model, {}):
                unquantized = run()
        with in_float32(model, quantized), ActivationRange() as activations:
            outputs = run()
    return Reference(
        outputs=outputs,
        unquantized=unquantized,
        largest=activations.largest,
        largest_deviation=activations.largest_deviation,
    )


def _fill(model: torch.nn.Module, kind: GraphKind, weights: ExpressionWeights) -> None:
    """Copy evaluated weights into a module, one at a time.

    Raises:
        ConversionError: ``weights.missing``; names the first weight that there is nothing for.
    """
    import torch

    wanted = model.state_dict()
    named = match_names(kind.id, weights.tensors, wanted.keys(), kind.renames)
    # Tied weights are one tensor of several names, of which a checkpoint may hold one.
    filled = {wanted[name].data_ptr() for name in named}
    missing = sorted(name for name in set(wanted) - set(named) if wanted[name].data_ptr() not in filled)
    if missing:
        raise ConversionError(
            "weights.missing",
            f"There is no tensor for {missing[0]} of {kind.id}.",
            "The checkpoint lacks a part; download it again.",
        )
    read = read_numbers(weights.paths)
    for name, weight in named.items():
        numbers = evaluate_range(weight, 0, weight.size, read).astype(np.float32)
        wanted[name].copy_(torch.from_numpy(numbers).reshape(wanted[name].shape))

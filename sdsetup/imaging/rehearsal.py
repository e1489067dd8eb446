"""Find the sizes of a request's runs before any submodel is open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from conversions.events import ignore
from conversions.package.layout import Package
from conversions.recipe import InitialImage
from sdsetup.imaging.request import Request
from sdsetup.runtime.devices import Device
from sdsetup.runtime.runner import Usage
from sdsetup.runtime.sessions import Array, Arrays, Signature, signature_of, sizes_of

if TYPE_CHECKING:
    from sdsetup.imaging.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A runner that computes nothing and notes the sizes of each submodel's first run.

    Attributes:
        package: The package.
        device: Where its submodels will run.
        sizes: Of the dimensions of the inputs, by their names, of each submodel that was asked to run.
    """

    package: Package
    device: Device
    sizes: dict[str, dict[str, int]] = field(default_factory=dict, init=False)
    _signatures: dict[str, Signature] = field(default_factory=dict, init=False)

    def run(self, submodel: str, inputs: Arrays) -> dict[str, Array]:
        """Note the inputs' sizes; return float32 ones in the outputs' shapes, where the inputs tell them."""
        if submodel not in self._signatures:
            self._signatures[submodel] = signature_of(self.package.graph(submodel))
        signature = self._signatures[submodel]
        sizes = sizes_of(signature.inputs, inputs)
        self.sizes.setdefault(submodel, sizes)
        return {
            name: np.ones(
                [sizes.get(size, 1) if isinstance(size, str) else size for size in shape], np.float32
            )
            for name, shape in signature.outputs.items()
        }

    def begin(self) -> None:
        """Do nothing: nothing is opened."""

    def opens_ahead(self, submodel: str) -> bool:  # noqa: ARG002 - the protocol's
        """No: nothing is opened."""
        return False

    def open_ahead(self, submodel: str, sizes: Mapping[str, int]) -> None:
        """Do nothing: nothing is opened."""

    def upcast_to_fp32(self, submodel: str) -> None:
        """Do nothing: sizes do not depend on the precision."""

    def skip_layers(self, submodel: str, count: int) -> None:
        """Do nothing: sizes do not depend on the layers."""

    def shrink_tiles(self, submodel: str) -> int | None:  # noqa: ARG002 - the protocol's
        """Return None: no memory runs out."""
        return None

    def done_with(self, submodel: str) -> None:
        """Do nothing: nothing is open."""

    def usage(self) -> Mapping[str, Usage]:
        """Return nothing: no submodel ran."""
        return {}

    def close(self) -> None:
        """Do nothing: nothing is open."""


def rehearse(pipeline: Pipeline, request: Request) -> Mapping[str, Mapping[str, int]]:
    """Return the sizes of the submodels' inputs in a request's runs: of each dimension, by its name.

    Submodels that are not told of are those that encode an image to start from.

    Args:
        pipeline: Ready to make the images.
        request: A complete one.
    """
    package, recipe = pipeline.package, pipeline.package.recipe
    rehearsal = Rehearsal(package=package, device=pipeline.runner.device)
    silent = replace(pipeline, runner=rehearsal, listener=ignore)
    conditioning = silent.encode(request)
    latents = np.zeros((request.images, *recipe.latents.shape(request.size)), np.float32)
    initial = None
    if request.init_image is not None:
        mask = None if request.mask is None else np.zeros((1, 1, *latents.shape[2:]), np.float32)
        initial = InitialImage(latents=latents, mask=mask, masked_latents=latents)
    (denoiser,) = package.with_role("denoiser")
    for inputs in recipe.denoiser_inputs(latents, 0.0, conditioning, initial):
        rehearsal.run(denoiser, inputs)
    recipe.decode(rehearsal.run, latents[:1])
    silent.flag(np.zeros((request.images, request.size.height, request.size.width, 3), np.uint8))
    return rehearsal.sizes

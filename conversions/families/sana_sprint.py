"""Sana-Sprint: Sana's denoiser, distilled to a few steps and told the guidance scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from conversions.families.sana import PARTS, SANA_600M, SanaRecipe
from conversions.families.shared.sana_names import single_file
from conversions.family import Family, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.recipe import Defaults, GuidedPrompts, Tensors
from conversions.submodels.sana_transformer import SANA_TRANSFORMER

# Source: the defaults of __call__ of diffusers' SanaSprintPipeline.
_STEPS = 2
# Source: the default of guidance_embeds_scale of SanaTransformer2DModel.
_GUIDANCE_FACTOR = 0.1


@dataclass(frozen=True, kw_only=True)
class SprintRecipe(SanaRecipe):
    """Text to image as diffusers' SanaSprintPipeline makes it.

    Guidance is an input, so no negative prompt is read. The scheduler turns what the denoiser predicts into
    what a consistency model does, and latents into its units.
    """

    own_scheduler: ClassVar[str] = "SCMScheduler"
    embeds_guidance: ClassVar[bool] = True

    @property
    def defaults(self) -> Defaults:
        """What images are when a request does not say."""
        return replace(super().defaults, steps=_STEPS)

    def guided(self, guidance_scale: float) -> bool:  # noqa: ARG002 - the protocol's
        """No: guidance is an input."""
        return False

    def time(self, timestep: float) -> float:
        """Return what the denoiser is told of a timestep: the noise's share, as the scheduler gives it."""
        return timestep

    def further_inputs(self, request: GuidedPrompts) -> Tensors:
        """Return the guidance scale in the denoiser's units."""
        given = self.transformer.get("guidance_embeds_scale")
        scale = np.float32(_GUIDANCE_FACTOR if given is None else given)
        return {"guidance": np.array([request.guidance_scale], dtype=np.float32) * scale}


def recipe(configs: PipelineConfigs) -> SprintRecipe:
    """Return how images are made with a checkpoint of this family."""
    return SprintRecipe(configs=configs)


# Source: convert_sana_to_diffusers.py of diffusers, ``SanaSprint_1600M_P1_D20``.
SPRINT_1600M: Config = {"guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
# Source: the same, ``SanaSprint_600M_P1_D28``.
SPRINT_600M: Config = {**SANA_600M, **SPRINT_1600M}

FAMILY = Family(
    name="sana-sprint",
    title="Sana-Sprint",
    pipelines=("SanaSprintPipeline", "SanaSprintImg2ImgPipeline"),
    parts=PARTS,
    metadata=("scheduler", "tokenizer"),
    tokenizers=("tokenizer",),
    recipe=recipe,
    single_file=single_file(guidance=True),
    # The text encoder and the autoencoder have the graphs of Sana's.
    shipped=(
        ShippedGraph(label="Sana-Sprint 1.6B", kind=SANA_TRANSFORMER, config=SPRINT_1600M),
        ShippedGraph(label="Sana-Sprint 0.6B", kind=SANA_TRANSFORMER, config=SPRINT_600M),
    ),
)

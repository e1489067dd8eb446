"""Sana: Gemma 2 reads the prompt behind an instruction, linear attention denoises latents of 32x32 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from conversions.families.shared.latent_recipe import LatentRecipe
from conversions.families.shared.sana_names import single_file
from conversions.family import Family, Part, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.recipe import (
    Conditioning,
    Defaults,
    Floats,
    GuidedPrompts,
    ImageSize,
    InitialImage,
    LatentSpace,
    NoiseLevels,
    PaddedTokens,
    PromptEncoder,
    Run,
    Task,
    Tensors,
)
from conversions.submodels import autoencoder_dc, gemma2
from conversions.submodels import sana_transformer as denoiser
from conversions.submodels.autoencoder_dc import DC_DECODER
from conversions.submodels.gemma2 import GEMMA2_TEXT
from conversions.submodels.sana_transformer import SANA_TRANSFORMER

# Source: the defaults of __call__ of diffusers' SanaPipeline.
_LENGTH = 300
_STEPS, _GUIDANCE = 20, 4.5
INSTRUCTION = """\
Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for \
image generation. Evaluate the level of detail in the user prompt:
- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial \
relationships to create vivid and concrete scenes.
- If the prompt is already detailed, refine and enhance the existing details slightly without \
overcomplicating.
Here are examples of how to transform or refine prompts:
- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping \
peacefully on a warm sunny windowsill, surrounded by pots of blooming red flowers.
- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing \
street lamps, a diverse crowd of people in colorful clothing, and a double-decker bus passing by towering \
glass skyscrapers.
Please generate only the enhanced description for the prompt below and avoid including any additional \
commentary or evaluations:
User Prompt: """
"""What stands before a prompt. Source: ``complex_human_instruction`` of the same ``__call__``."""

_TOKENS_OF_INSTRUCTION = 208
"""As many as Gemma's own tokenizer makes of it, the start included; checkpoints all have that one."""

_MOST_TOKENS = 8192
"""Places that Gemma 2 knows: more than any instruction takes."""


@dataclass(frozen=True, kw_only=True)
class SanaRecipe(LatentRecipe):
    """Text to image as diffusers' SanaPipeline makes it.

    Images have the size that is asked for: diffusers makes them in the nearest of the sizes of training, and
    resizes them.
    """

    prompt_length: ClassVar[int] = _LENGTH
    prediction: ClassVar[str] = "out_hidden_states"
    most_clip_skip: ClassVar[int] = 0
    weighs_words: ClassVar[bool] = False
    tasks: ClassVar[frozenset[Task]] = frozenset({"text-to-image"})
    embeds_guidance: ClassVar[bool] = False

    @property
    def transformer(self) -> Config:
        """The denoiser's configuration."""
        return self.config_of("transformer")

    @property
    def channels(self) -> int:
        """Of a latent image."""
        return int(denoiser.value_of(self.transformer, "in_channels"))

    @property
    def latents(self) -> LatentSpace:
        """The space that the denoiser works in."""
        return LatentSpace(
            channels=self.channels,
            downscale=autoencoder_dc.downscale(self.vae),
            scaling=float(self.vae.get("scaling_factor") or 1.0),
        )

    @property
    def unsupported(self) -> str:
        """Why no images can be made with the checkpoint."""
        reasons = (
            denoiser.unsupported(self.transformer),
            self._other_guidance,
            gemma2.unsupported(self.config_of("text_encoder"), _TOKENS_OF_INSTRUCTION + _LENGTH),
            self._other_words,
            self._other_latents,
        )
        return next((reason for reason in reasons if reason), "")

    @property
    def _other_guidance(self) -> str:
        embedded = bool(denoiser.value_of(self.transformer, "guidance_embeds"))
        if embedded == self.embeds_guidance:
            return ""
        reads, whose = ("reads", "Sana-Sprint") if embedded else ("does not read", "Sana")
        return f"The transformer {reads} the guidance scale: it belongs to the pipeline of {whose}."

    @property
    def _other_words(self) -> str:
        width = gemma2.width_of(self.config_of("text_encoder"))
        wanted = denoiser.value_of(self.transformer, "caption_channels")
        if width == wanted:
            return ""
        return f"The text encoder has states of {width} numbers, the transformer reads {wanted}."

    @property
    def _other_latents(self) -> str:
        channels = autoencoder_dc.channels(self.vae)
        if channels == self.channels:
            return ""
        return f"The autoencoder has latents of {channels} channels, the transformer of {self.channels}."

    @property
    def native(self) -> ImageSize:
        """The size of the images that the checkpoint was trained on."""
        side = denoiser.side_of(self.transformer) * self.latents.downscale
        return ImageSize(width=side, height=side)

    @property
    def defaults(self) -> Defaults:
        """What images are when a request does not say."""
        return Defaults(
            width=self.native.width,
            height=self.native.height,
            steps=_STEPS,
            guidance_scale=_GUIDANCE,
            strength={},
        )

    @property
    def size_multiple(self) -> int:
        """One patch's width in pixels."""
        return self.latents.downscale * int(denoiser.value_of(self.transformer, "patch_size"))

    def grid(self, size: ImageSize) -> tuple[int, int]:
        """Return the rows and columns of an image's patches."""
        return size.height // self.size_multiple, size.width // self.size_multiple

    def noise_levels(self, steps: int, size: ImageSize) -> NoiseLevels:
        """Return levels that the scheduler alone chooses: its shift is the same for all sizes."""
        del steps
        rows, columns = self.grid(size)
        return NoiseLevels(image_tokens=rows * columns)

    def sizes(self, role: str, size: ImageSize) -> Mapping[str, int]:
        """Return the size of each free dimension of a submodel's inputs, by the submodel's role."""
        rows, columns = self.grid(size)
        match role:
            case "text":
                return {"batch": 1, "sequence": _TOKENS_OF_INSTRUCTION + _LENGTH - 2}
            case "denoiser":
                rows_at_once = (2 if self.guided(_GUIDANCE) else 1) * size.images
                words = {"sequence": _LENGTH, "tokens": rows * columns}
                return {**self.latent_sizes(size), "batch": rows_at_once, **words}
            case _:
                return self.autoencoder_sizes(role, size)

    def encode(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts) -> Conditioning:
        """Turn the prompts into states with the mask of their padding, and an image's size into positions.

        The negative prompt has no instruction. It is filled up to the same length, so that one session runs
        both: no word sees what comes behind it.

        Source: ``encode_prompt`` of diffusers' SanaPipeline; section 3.1 of the paper for the instruction.
        """
        *away, text = self.texts(request)
        instruction = prompts.tokenize(INSTRUCTION, "tokenizer", length=_MOST_TOKENS, multiple=1)
        length = instruction.ids.shape[1] + _LENGTH - 2
        given = [
            filled_up(prompts.tokenize(cleaned(each), "tokenizer", length=_LENGTH), length) for each in away
        ]
        behind = prompts.tokenize(cleaned(text), "tokenizer", length=length, before=INSTRUCTION)
        given.append(filled_up(behind, length))
        kept = [np.arange(_LENGTH) for _ in away]
        # Of a text behind the instruction, the start and the last tokens.
        kept.append(np.append(0, np.arange(length - _LENGTH + 1, length)))
        states, masks = [], []
        for (ids, mask), places in zip(given, kept, strict=True):
            found = run("text_encoder", {"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
            states.append(np.repeat(found[:, places], request.size.images, axis=0))
            masks.append(np.repeat(mask[:, places], request.size.images, axis=0))
        inputs: Tensors = {
            "encoder_hidden_states": np.concatenate(states),
            "encoder_attention_mask": np.concatenate(masks),
            **self.further_inputs(request),
        }
        if denoiser.reads_positions(self.transformer):
            inputs["pos_embed"] = denoiser.position_table(self.transformer, *self.grid(request.size))
        return Conditioning(size=request.size, runs=(inputs,), branches=len(given))

    def further_inputs(self, request: GuidedPrompts) -> Tensors:
        """Return what else the denoiser is given: nothing."""
        del request
        return {}

    def denoiser_inputs(
        self, latents: Floats, timestep: float, conditioning: Conditioning, initial: InitialImage | None
    ) -> tuple[Tensors, ...]:
        """Put the transformer's inputs together; both prompts are rows of one batch."""
        return super().denoiser_inputs(latents, self.time(timestep), conditioning, initial)

    def time(self, timestep: float) -> float:
        """Return what the denoiser is told of a timestep."""
        scale = self.transformer.get("timestep_scale")
        return timestep * (1.0 if scale is None else float(scale))

    def guide(self, outputs: tuple[Floats, ...], conditioning: Conditioning, guidance_scale: float) -> Floats:
        """Apply classifier-free guidance, and leave a learned variance out, which no sampler reads."""
        return super().guide(outputs, conditioning, guidance_scale)[:, : self.channels]


def cleaned(prompt: str) -> str:
    """Return a prompt as the model reads it: in small letters.

    Source: ``_text_preprocessing`` of diffusers' SanaPipeline with its default ``clean_caption=False``.
    """
    return prompt.lower().strip()


def filled_up(tokens: PaddedTokens, length: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return ids and mask of a length, the text first: the pipeline pads at the end, whatever files say."""
    used = tokens.mask[0] == 1
    padding = tokens.ids[0, ~used]
    # A text that fills its length has no padding to copy, and what hides behind a mask may be any token.
    filling = np.full(length - used.sum(), padding[0] if padding.size else 0, dtype=np.int32)
    ids = np.concatenate([tokens.ids[0, used], filling])[None]
    return ids, (np.arange(length)[None] < used.sum()).astype(np.int32)


def recipe(configs: PipelineConfigs) -> SanaRecipe:
    """Return how images are made with a checkpoint of this family."""
    return SanaRecipe(configs=configs)


# Source: convert_sana_to_diffusers.py of diffusers, ``SanaMS_1600M_P1_D20``; models of 512 and 1024 pixels
# have the same graph, and those of 2048 and 4096 have the same graph with positions.
SANA_1600M: Config = {}
SANA_1600M_2K: Config = {"interpolation_scale": 1.0}
# Source: the same, ``SanaMS1.5_1600M_P1_D20`` and ``SanaMS1.5_4800M_P1_D60``.
SANA_15_1600M: Config = {"qk_norm": "rms_norm_across_heads"}
SANA_15_4800M: Config = {**SANA_15_1600M, "num_layers": 60}
# Source: the same, ``SanaMS_600M_P1_D28``.
SANA_600M: Config = {
    "num_attention_heads": 36,
    "num_layers": 28,
    "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
}
_BLOCKS = ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3
# Source: convert_dcae_to_diffusers.py of diffusers, ``dc-ae-f32c32-sana``.
DC_AE: Config = {"decoder_block_types": _BLOCKS, "upsample_block_type": "interpolate"}
# Source: google/gemma-2-2b-it, which every field of Gemma2Config has as its default.
GEMMA2_2B: Config = {}

PARTS = (
    Part(name="text_encoder", component="text_encoder", kinds=(GEMMA2_TEXT,), role="text"),
    Part(name="transformer", component="transformer", kinds=(SANA_TRANSFORMER,), role="denoiser"),
    Part(name="vae_decoder", component="vae", kinds=(DC_DECODER,), role="decoder"),
)

FAMILY = Family(
    name="sana",
    title="Sana",
    pipelines=("SanaPipeline",),
    parts=PARTS,
    metadata=("scheduler", "tokenizer"),
    tokenizers=("tokenizer",),
    recipe=recipe,
    single_file=single_file(guidance=False),
    shipped=(
        ShippedGraph(label="Sana, Sana-Sprint", kind=GEMMA2_TEXT, config=GEMMA2_2B),
        ShippedGraph(label="Sana 1600M", kind=SANA_TRANSFORMER, config=SANA_1600M),
        ShippedGraph(label="Sana 1600M of 2048 pixels", kind=SANA_TRANSFORMER, config=SANA_1600M_2K),
        ShippedGraph(label="Sana 600M", kind=SANA_TRANSFORMER, config=SANA_600M),
        ShippedGraph(label="Sana 1.5 1.6B", kind=SANA_TRANSFORMER, config=SANA_15_1600M),
        ShippedGraph(label="Sana 1.5 4.8B", kind=SANA_TRANSFORMER, config=SANA_15_4800M),
        ShippedGraph(label="Sana, Sana-Sprint", kind=DC_DECODER, config=DC_AE),
    ),
)

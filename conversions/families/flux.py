"""FLUX.1 schnell and dev: CLIP's pooled state and T5 guide a transformer that was distilled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from conversions.families.shared import original_layout as original
from conversions.families.shared.encoders_in_file import CLIP_L_IN_FILE, t5_in_file
from conversions.families.shared.flow_recipe import FlowRecipe
from conversions.families.shared.flux_names import embeddings, modules_of, structure_of_file
from conversions.families.shared.transformer_names import Parts, columns_of, count_of, renamed, rows_of
from conversions.family import Family, Part, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.recipe import (
    Defaults,
    Floats,
    GuidedPrompts,
    ImageSize,
    PromptEncoder,
    Run,
    Tensors,
)
from conversions.single_file_layout import FileComponent, SingleFileLayout, no_differences
from conversions.submodels import flux_transformer
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.flux_transformer import FLUX_TRANSFORMER
from conversions.submodels.t5_encoder import T5_ENCODER
from conversions.submodels.vae import DECODER, ENCODER
from conversions.weights import expression

_PATCH = 2


@dataclass(frozen=True, kw_only=True)
class FluxRecipe(FlowRecipe):
    """Text to image and image to image, as diffusers' FluxPipeline and FluxImg2ImgPipeline do it.

    Guidance is an input of dev; schnell has none. Neither sees a negative prompt.
    """

    prompt_length: ClassVar[int] = 77
    weighs_words: ClassVar[bool] = True

    @property
    def transformer(self) -> Config:
        """The denoiser's configuration."""
        return self.config_of("transformer")

    @property
    def reads_guidance(self) -> bool:
        """Whether the denoiser is told the guidance scale, as dev is."""
        return bool(self.transformer.get("guidance_embeds"))

    @property
    def t5_length(self) -> int:
        """Tokens that T5 takes at once.

        Source: ``load_t5`` of black-forest-labs/flux: 256 for schnell; FluxPipeline.__call__: 512.
        """
        return 512 if self.reads_guidance else 256

    @property
    def unsupported(self) -> str:
        """Why no images can be made; a transformer with more inputs belongs to another pipeline."""
        channels = flux_transformer.value_of(self.transformer, "in_channels")
        patch = _PATCH**2 * self.latents.channels
        if channels == patch:
            return ""
        return (
            f"The transformer has {channels} input channels; this pipeline makes images with {patch}: "
            "a Fill, Depth, Canny or Kontext model needs another."
        )

    @property
    def defaults(self) -> Defaults:
        """What images are when a request does not say.

        Source: ``__call__`` of diffusers' FluxPipeline and FluxImg2ImgPipeline; the model card of schnell.
        """
        return Defaults(
            width=self.native_side,
            height=self.native_side,
            steps=28 if self.reads_guidance else 4,
            guidance_scale=3.5 if self.reads_guidance else 0.0,
            strength={"image-to-image": 0.6},
        )

    def guided(self, guidance_scale: float) -> bool:  # noqa: ARG002 - the protocol's
        """No: guidance is an input, or absent."""
        return False

    def sizes(self, role: str, size: ImageSize) -> Mapping[str, int]:
        """Return the size of each free dimension of a submodel's inputs, by the submodel's role."""
        rows, columns = self.grid(size)
        match role:
            case "text":
                return {"batch": 1, "sequence": self.prompt_length, "tokens": self.t5_length}
            case "denoiser":
                return {"batch": size.images, "tokens": rows * columns, "sequence": self.t5_length}
            case _:
                return self.autoencoder_sizes(role, size)

    def condition(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts, text: str) -> Tensors:
        """Return T5's states, CLIP's pooled state, positions, and the guidance scale for dev.

        Source: ``encode_prompt`` of diffusers' FluxPipeline.
        """
        images = request.size.images
        clip = prompts.encode(text, "tokenizer")
        pooled = run("text_encoder", {"input_ids": clip.tokens})["pooler_output"][:1]
        words = prompts.encode(text, "tokenizer_2", length=self.t5_length)
        hidden = run("text_encoder_2", {"input_ids": words.tokens})["last_hidden_state"]
        states = prompts.embed(hidden, words)
        image_cos, image_sin = flux_transformer.rotary_tables(self.transformer, *self.grid(request.size))
        text_cos, text_sin = flux_transformer.text_tables(self.transformer, states.shape[1])
        guidance = np.array([request.guidance_scale], dtype=np.float32)
        return {
            "encoder_hidden_states": np.repeat(states, images, axis=0),
            "pooled_projections": np.repeat(pooled, images, axis=0),
            "image_rotary_cos": image_cos,
            "image_rotary_sin": image_sin,
            "text_rotary_cos": text_cos,
            "text_rotary_sin": text_sin,
            **({"guidance": guidance} if self.reads_guidance else {}),
        }

    def time(self, timestep: float) -> np.float32:
        """Return the noise level, 1 to 0."""
        return np.float32(timestep) / np.float32(1000)

    def pack(self, latents: Floats) -> Floats:
        """Turn patches into tokens, channels slowest."""
        images, channels, height, width = latents.shape
        grid = latents.reshape(images, channels, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
        return grid.transpose(0, 2, 4, 1, 3, 5).reshape(images, -1, _PATCH**2 * channels)

    def unpack(self, tokens: Floats, size: ImageSize) -> Floats:
        """Undo :meth:`pack`."""
        channels, height, width = self.latents.shape(size)
        grid = tokens.reshape(len(tokens), *self.grid(size), channels, _PATCH, _PATCH)
        return grid.transpose(0, 3, 1, 4, 2, 5).reshape(len(tokens), channels, height, width)


def recipe(configs: PipelineConfigs) -> FluxRecipe:
    """Return how images are made with a checkpoint of this family."""
    return FluxRecipe(configs=configs)


@dataclass(frozen=True, kw_only=True)
class FluxNames:
    """The names of black-forest-labs/flux to those of ``FluxTransformer2DModel``.

    Source: ``Flux``, ``DoubleStreamBlock`` and ``SingleStreamBlock`` of black-forest-labs/flux beside
    diffusers' class; a test compares with diffusers' loader.
    """

    def __call__(self, tensors: expression.Tensors) -> expression.Tensors:
        """Return the tensors by their new names; those that are unknown keep theirs."""
        modules = {**modules_of(tensors, _DOUBLE), **_EMBEDDINGS}
        for block in range(count_of(tensors, "single_blocks")):
            old, new = f"single_blocks.{block}", f"single_transformer_blocks.{block}"
            modules |= {f"{old}.{name}": f"{new}.{other}" for name, other in _SINGLE.items()}
            rows, width = (of(tensors, f"{old}.linear1.weight") for of in (rows_of, columns_of))
            names = tuple(f"{new}.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))
            if rows and width:
                modules[f"{old}.linear1"] = Parts(modules=names, rows=(width, width, width, rows - 3 * width))
        return renamed(tensors, modules)


_EMBEDDINGS = embeddings(
    "time_text_embed",
    {"time_in": "timestep_embedder", "vector_in": "text_embedder", "guidance_in": "guidance_embedder"},
)
_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_SINGLE = {
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "linear2": "proj_out",
}


def _names(config: Config) -> FluxNames:
    del config
    return FluxNames()


FAMILY = Family(
    name="flux",
    title="FLUX.1",
    pipelines=("FluxPipeline", "FluxImg2ImgPipeline", "ORTFluxPipeline"),
    parts=(
        Part(name="text_encoder", component="text_encoder", kinds=(CLIP_TEXT,), role="text"),
        Part(
            name="text_encoder_2", component="text_encoder_2", kinds=(T5_ENCODER,), role="text", called="t5"
        ),
        Part(name="transformer", component="transformer", kinds=(FLUX_TRANSFORMER,), role="denoiser"),
        Part(name="vae_encoder", component="vae", kinds=(ENCODER,), role="encoder"),
        Part(name="vae_decoder", component="vae", kinds=(DECODER,), role="decoder"),
    ),
    metadata=("scheduler", "tokenizer", "tokenizer_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    recipe=recipe,
    single_file=SingleFileLayout(
        components=(
            CLIP_L_IN_FILE,
            t5_in_file("text_encoder_2"),
            FileComponent(
                name="transformer",
                prefixes=("model.diffusion_model.", ""),
                # Chroma has FLUX.1's blocks and no such layer.
                marker="vector_in.in_layer.weight",
                names=_names,
            ),
            original.VAE_IN_FILE,
        ),
        denoiser="transformer",
        recognise=no_differences,
        # T5's tokenizer does not come with the program.
        small_files=None,
        structure=structure_of_file,
        fixed=("in_channels", "guidance_embeds", "joint_attention_dim", "pooled_projection_dim"),
    ),
    # Source: published configurations; the defaults of diffusers' class are schnell's. Text encoders and
    # autoencoder are those of Stable Diffusion 1.x, 3 and Z-Image.
    shipped=(
        ShippedGraph(label="FLUX.1 schnell", kind=FLUX_TRANSFORMER, config={}),
        ShippedGraph(label="FLUX.1 dev", kind=FLUX_TRANSFORMER, config={"guidance_embeds": True}),
    ),
)

"""FLUX.2 klein: three layers of Qwen3 read the prompt, a transformer of two streams and of one denoises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from conversions.families.shared import original_layout as original
from conversions.families.shared.flow_recipe import FlowRecipe, chat
from conversions.families.shared.flux_names import embeddings, modules_of, structure_of_file
from conversions.families.shared.original_names import OriginalAutoencoder
from conversions.families.shared.transformer_names import count_of, renamed
from conversions.families.z_image import QWEN3_4B
from conversions.family import Family, Part, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.recipe import (
    Defaults,
    Floats,
    GuidedPrompts,
    ImageSize,
    LatentSpace,
    PromptEncoder,
    Run,
    Task,
    Tensors,
)
from conversions.single_file_layout import FileComponent, SingleFileLayout, no_differences
from conversions.submodels import flux2 as denoiser
from conversions.submodels import flux2_vae, qwen3
from conversions.submodels.flux2 import FLUX2
from conversions.submodels.flux2_vae import FLUX2_DECODER
from conversions.submodels.qwen3 import FLUX2_LAYERS, QWEN3_THREE_LAYERS
from conversions.weights import expression

# Source: compute_empirical_mu of diffusers' Flux2KleinPipeline: two lines over an image's tokens, for 10 and
# for 200 steps, and the number of tokens from which on the second alone counts.
_SLOPE_10, _START_10 = 8.73809524e-05, 1.89833333
_SLOPE_200, _START_200 = 0.00016927, 0.45666666
_MANY_TOKENS = 4300


@dataclass(frozen=True, kw_only=True)
class KleinRecipe(FlowRecipe):
    """Images from text as diffusers' Flux2KleinPipeline makes them."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"text-to-image"})
    # The latents of the loop are packed already: four of the autoencoder's to a token.
    patch: ClassVar[int] = 1

    @property
    def unsupported(self) -> str:
        """Why no images can be made with the checkpoint."""
        text = self.config_of("text_encoder")
        if text and qwen3.last_but_one(text) + 1 < max(FLUX2_LAYERS):
            return f"The text encoder has fewer than {max(FLUX2_LAYERS)} layers, whose states are wanted."
        return (
            denoiser.unsupported(self.config_of("transformer"))
            or flux2_vae.unsupported(self.config_of("vae"))
            or qwen3.unsupported(text)
        )

    @property
    def latents(self) -> LatentSpace:
        """Packed latents, which the decoder brings to their scale by itself."""
        vae = self.config_of("vae")
        return LatentSpace(
            channels=flux2_vae.packed_channels(vae), downscale=flux2_vae.downscale(vae), scaling=1.0
        )

    @property
    def _distilled(self) -> bool:
        return self.configs.index.get("is_distilled") is True

    @property
    def reads_guidance(self) -> bool:
        """Whether the guidance scale changes anything, which it does not in distilled models."""
        return not self._distilled

    @property
    def defaults(self) -> Defaults:
        """What images are when a request does not say: 4 steps where the checkpoint is distilled.

        Source: ``__call__`` of diffusers' Flux2KleinPipeline; the model card of FLUX.2-klein-4B.
        """
        return Defaults(
            width=self.native_side,
            height=self.native_side,
            steps=4 if self._distilled else 50,
            guidance_scale=1.0 if self._distilled else 4.0,
            strength={},
        )

    def guided(self, guidance_scale: float) -> bool:
        """Say whether there is guidance, which a distilled model does without."""
        return guidance_scale > 1 and not self._distilled

    def shift(self, steps: int, size: ImageSize) -> float:
        """Return the log of the shift, which the number of steps decides too."""
        rows, columns = self.grid(size)
        tokens = rows * columns
        for_200 = _SLOPE_200 * tokens + _START_200
        if tokens > _MANY_TOKENS:
            return for_200
        for_10 = _SLOPE_10 * tokens + _START_10
        slope = (for_200 - for_10) / 190.0
        return slope * steps + for_200 - 200.0 * slope

    def sizes(self, role: str, size: ImageSize) -> dict[str, int]:
        """Return the size of each free dimension of a submodel's inputs."""
        rows, columns = self.grid(size)
        match role:
            case "text":
                return {"batch": 1, "sequence": self.prompt_length}
            case "denoiser":
                return {"batch": size.images, "tokens": rows * columns, "sequence": self.prompt_length}
            case _:
                return {"batch": size.images, "height": rows, "width": columns}

    def condition(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts, text: str) -> Tensors:
        """Return three layers' states side by side, padding included, and the positions.

        Source: ``_get_qwen3_prompt_embeds`` of diffusers' Flux2KleinPipeline.
        """
        before, after = chat(thinking=False)
        tokens = prompts.tokenize(text, "tokenizer", length=self.prompt_length, before=before, after=after)
        outputs = run("text_encoder", {"input_ids": tokens.ids, "attention_mask": tokens.mask})
        states = np.concatenate([outputs[f"hidden_states.{layer}"] for layer in FLUX2_LAYERS], axis=2)
        config = self.config_of("transformer")
        image = denoiser.rotary_tables(config, denoiser.image_positions(*self.grid(request.size)))
        words = denoiser.rotary_tables(config, denoiser.text_positions(self.prompt_length))
        return {
            "encoder_hidden_states": np.repeat(states, request.size.images, axis=0),
            "image_rotary_cos": image[0],
            "image_rotary_sin": image[1],
            "text_rotary_cos": words[0],
            "text_rotary_sin": words[1],
        }

    def time(self, timestep: float) -> np.float32:
        """Return the noise's share, 0 to 1."""
        return np.float32(timestep) / np.float32(1000)

    def pack(self, latents: Floats) -> Floats:
        """Make each place of the latents a token."""
        return latents.reshape(*latents.shape[:2], -1).transpose(0, 2, 1)

    def unpack(self, tokens: Floats, size: ImageSize) -> Floats:
        """Make each token a place of the latents."""
        return tokens.transpose(0, 2, 1).reshape(len(tokens), *self.latents.shape(size))


# Source: transformer/config.json of black-forest-labs/FLUX.2-klein-4B.
KLEIN_4B: Config = {
    "guidance_embeds": False,
    "joint_attention_dim": 7680,
    "num_attention_heads": 24,
    "num_layers": 5,
    "num_single_layers": 20,
}
# Source: ``Klein9BParams`` of black-forest-labs/flux2.
KLEIN_9B: Config = {
    "guidance_embeds": False,
    "joint_attention_dim": 12288,
    "num_attention_heads": 32,
    "num_layers": 8,
    "num_single_layers": 24,
}
# Source: config.json of Qwen/Qwen3-8B; three of its states side by side are what the denoiser of 9B reads.
QWEN3_8B: Config = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rope_theta": 1000000,
}
_LABEL_4B, _LABEL_9B = "FLUX.2 klein 4B", "FLUX.2 klein 9B"


def recipe(configs: PipelineConfigs) -> KleinRecipe:
    """Return how images are made."""
    return KleinRecipe(configs=configs)


@dataclass(frozen=True, kw_only=True)
class Flux2Names:
    """The names of black-forest-labs/flux2 to those of ``Flux2Transformer2DModel``.

    Source: ``Flux2``, ``DoubleStreamBlock`` and ``SingleStreamBlock`` of black-forest-labs/flux2 beside
    diffusers' class; a test compares with diffusers' loader.
    """

    def __call__(self, tensors: expression.Tensors) -> expression.Tensors:
        """Return the tensors by their new names; those that are unknown keep theirs."""
        modules = {**modules_of(tensors, _DOUBLE), **_EMBEDDINGS, **_MODULATIONS}
        for block in range(count_of(tensors, "single_blocks")):
            old, new = f"single_blocks.{block}", f"single_transformer_blocks.{block}.attn"
            modules |= {f"{old}.{name}": f"{new}.{other}" for name, other in _SINGLE.items()}
        return renamed(tensors, modules)


_EMBEDDINGS = embeddings(
    "time_guidance_embed", {"time_in": "timestep_embedder", "guidance_in": "guidance_embedder"}
)
_MODULATIONS = {
    f"{name}.lin": f"{name}.linear"
    for name in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")
}
_DOUBLE = {
    "img_mlp.0": "ff.linear_in",
    "img_mlp.2": "ff.linear_out",
    "txt_mlp.0": "ff_context.linear_in",
    "txt_mlp.2": "ff_context.linear_out",
}
_SINGLE = {
    "linear1": "to_qkv_mlp_proj",
    "linear2": "to_out",
    "norm.query_norm": "norm_q",
    "norm.key_norm": "norm_k",
}


@dataclass(frozen=True, kw_only=True)
class Flux2AutoencoderNames:
    """The names of FLUX.2's autoencoder to those of ``AutoencoderKLFlux2``.

    Source: ``AutoEncoder`` of black-forest-labs/flux2, where encoder and decoder hold the outer convolutions.

    Attributes:
        levels: Number of levels.
    """

    levels: int

    def __call__(self, tensors: expression.Tensors) -> expression.Tensors:
        """Return the tensors by their new names."""
        outer = {"encoder.quant_conv": "quant_conv", "decoder.post_quant_conv": "post_quant_conv"}
        return OriginalAutoencoder(levels=self.levels)(renamed(tensors, outer))


def _names(config: Config) -> Flux2Names:
    del config
    return Flux2Names()


def _vae_names(config: Config) -> Flux2AutoencoderNames:
    return Flux2AutoencoderNames(levels=len(config.get("block_out_channels", (0,) * 4)))


FAMILY = Family(
    name="flux2-klein",
    title="FLUX.2 klein",
    pipelines=("Flux2KleinPipeline",),
    parts=(
        Part(name="text_encoder", component="text_encoder", kinds=(QWEN3_THREE_LAYERS,), role="text"),
        Part(name="transformer", component="transformer", kinds=(FLUX2,), role="denoiser"),
        Part(name="vae_decoder", component="vae", kinds=(FLUX2_DECODER,), role="decoder"),
    ),
    metadata=("scheduler", "tokenizer"),
    tokenizers=("tokenizer",),
    recipe=recipe,
    single_file=SingleFileLayout(
        components=(
            FileComponent(
                name="transformer",
                prefixes=("model.diffusion_model.", ""),
                marker="double_stream_modulation_img.lin.weight",
                names=_names,
            ),
            replace(original.VAE_IN_FILE, names=_vae_names),
        ),
        denoiser="transformer",
        recognise=no_differences,
        # Qwen's tokenizer does not come with the program.
        small_files=None,
        structure=structure_of_file,
        fixed=("in_channels", "joint_attention_dim", "guidance_embeds"),
    ),
    shipped=(
        ShippedGraph(label=_LABEL_4B, kind=QWEN3_THREE_LAYERS, config=QWEN3_4B),
        ShippedGraph(label=_LABEL_4B, kind=FLUX2, config=KLEIN_4B),
        ShippedGraph(label=_LABEL_9B, kind=QWEN3_THREE_LAYERS, config=QWEN3_8B),
        ShippedGraph(label=_LABEL_9B, kind=FLUX2, config=KLEIN_9B),
        # Every field that shapes the graph has its default, in both.
        ShippedGraph(label="FLUX.2 klein", kind=FLUX2_DECODER, config={}),
    ),
)

"""Z-Image and Z-Image-Turbo: Qwen3 reads the prompt, a transformer of one stream denoises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conversions.families.shared import original_layout as original
from conversions.families.shared.flow_recipe import FlowRecipe, chat
from conversions.families.shared.transformer_names import (
    Parts,
    Target,
    columns_of,
    count_of,
    known,
    renamed,
    rows_of,
)
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
from conversions.submodels import qwen3
from conversions.submodels import z_image as denoiser
from conversions.submodels.qwen3 import QWEN3_LAST_BUT_ONE
from conversions.submodels.vae import DECODER, ENCODER
from conversions.submodels.z_image import Z_IMAGE
from conversions.weights import expression

# Turbo is told by its scheduler: everything else of it is as in the model that it was distilled from.
# Source: scheduler/scheduler_config.json of Tongyi-MAI/Z-Image-Turbo; Tongyi-MAI/Z-Image has 6.
_TURBO_SHIFT = 3.0


@dataclass(frozen=True, kw_only=True)
class ZImageRecipe(FlowRecipe):
    """Images as diffusers' ZImagePipeline and ZImageImg2ImgPipeline make them."""

    @property
    def unsupported(self) -> str:
        """Why no images can be made with the checkpoint."""
        return denoiser.unsupported(self.config_of("transformer")) or qwen3.unsupported(
            self.config_of("text_encoder")
        )

    @property
    def defaults(self) -> Defaults:
        """What images are when a request does not say: few steps without guidance for Turbo.

        Source: ``__call__`` and the example of diffusers' ZImagePipeline; ``__call__`` of
        ZImageImg2ImgPipeline for the strength.
        """
        turbo = self.configs.scheduler.get("shift") == _TURBO_SHIFT
        return Defaults(
            width=self.native_side,
            height=self.native_side,
            steps=8 if turbo else 50,
            guidance_scale=0.0 if turbo else 5.0,
            strength={"image-to-image": 0.6},
        )

    def guided(self, guidance_scale: float) -> bool:
        """Say whether there is guidance: this pipeline's scale counts from 0, not from 1."""
        return guidance_scale > 0

    def sizes(self, role: str, size: ImageSize) -> dict[str, int]:
        """Return the size of each free dimension of a submodel's inputs, for the longest prompt."""
        rows, columns = self.grid(size)
        match role:
            case "text":
                return {"batch": 1, "sequence": self.prompt_length}
            case "denoiser":
                tokens = denoiser.filled_up(rows * columns)
                return {"batch": size.images, "tokens": tokens, "sequence": self.prompt_length}
            case _:
                return self.autoencoder_sizes(role, size)

    def condition(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts, text: str) -> Tensors:
        """Return the states of the prompt's tokens, and the positions of text and image.

        Source: ``_encode_prompt`` of diffusers' ZImagePipeline; ``patchify_and_embed`` of its transformer.
        """
        before, after = chat(thinking=True)
        tokens = prompts.tokenize(
            text,
            "tokenizer",
            length=self.prompt_length,
            multiple=denoiser.MULTIPLE,
            before=before,
            after=after,
        )
        inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask}
        output = f"hidden_states.{qwen3.last_but_one(self.config_of('text_encoder'))}"
        states = run("text_encoder", inputs)[output][:, tokens.mask[0] == 1]
        words = states.shape[1]
        length = denoiser.filled_up(words)
        states = np.pad(states, ((0, 0), (0, length - words), (0, 0)))
        rows, columns = self.grid(request.size)
        config = self.config_of("transformer")
        image = denoiser.image_positions(rows, columns, length)
        image_cos, image_sin = denoiser.rotary_tables(config, image)
        text_cos, text_sin = denoiser.rotary_tables(config, denoiser.text_positions(length))
        return {
            "encoder_hidden_states": np.repeat(states, request.size.images, axis=0),
            "image_padding": padding(rows * columns, len(image)),
            "text_padding": padding(words, length),
            "image_rotary_cos": image_cos,
            "image_rotary_sin": image_sin,
            "text_rotary_cos": text_cos,
            "text_rotary_sin": text_sin,
        }

    def combine(self, towards: Floats, away: Floats, guidance_scale: float) -> Floats:
        """Apply guidance as ZImagePipeline does, whose scale counts from 0."""
        guided: Floats = towards + np.float32(guidance_scale) * (towards - away)
        return guided

    def time(self, timestep: float) -> np.float32:
        """Return how far the image has come, 0 to 1: time runs against the noise."""
        return (np.float32(1000) - np.float32(timestep)) / np.float32(1000)

    def pack(self, latents: Floats) -> Floats:
        """Turn patches into tokens, channels fastest, and fill up by repeating the last."""
        images, channels, height, width = latents.shape
        side = self.patch
        grid = latents.reshape(images, channels, height // side, side, width // side, side)
        tokens = grid.transpose(0, 2, 4, 3, 5, 1).reshape(images, -1, side * side * channels)
        more = denoiser.filled_up(tokens.shape[1]) - tokens.shape[1]
        return np.pad(tokens, ((0, 0), (0, more), (0, 0)), mode="edge")

    def unpack(self, tokens: Floats, size: ImageSize) -> Floats:
        """Turn tokens into the velocity of the latents, whose sign is opposite to the model's."""
        channels, height, width = self.latents.shape(size)
        rows, columns = self.grid(size)
        side = self.patch
        grid = tokens[:, : rows * columns].reshape(len(tokens), rows, columns, side, side, channels)
        return -grid.transpose(0, 5, 1, 3, 2, 4).reshape(len(tokens), channels, height, width)


def padding(used: int, length: int) -> Floats:
    """Return 1 for each token of padding behind those that are used, float32 ``[length, 1]``."""
    return (np.arange(length) >= used).astype(np.float32)[:, None]


# Source: text_encoder/config.json of Tongyi-MAI/Z-Image-Turbo: Qwen3-4B.
QWEN3_4B: Config = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rope_theta": 1000000,
}
# Source: vae/config.json of the same: the autoencoder of FLUX.1.
VAE: Config = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "latent_channels": 16,
    "layers_per_block": 2,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
_LABEL = "Z-Image, Z-Image-Turbo"


def recipe(configs: PipelineConfigs) -> ZImageRecipe:
    """Return how images are made."""
    return ZImageRecipe(configs=configs)


@dataclass(frozen=True, kw_only=True)
class ZImageNames:
    """The names of Tongyi-MAI's release, as ComfyUI has them, to those of ``ZImageTransformer2DModel``.

    Source: ``NextDiT`` of ComfyUI (``comfy/ldm/lumina/model.py``) beside diffusers' class; a test compares
    with diffusers' loader.
    """

    def __call__(self, tensors: expression.Tensors) -> expression.Tensors:
        """Return the tensors by their new names; those that are unknown keep theirs."""
        modules: dict[str, Target] = {
            "x_embedder": "all_x_embedder.2-1",
            "final_layer.linear": "all_final_layer.2-1.linear",
            "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
        }
        for blocks in ("layers", "noise_refiner", "context_refiner"):
            for block in range(count_of(tensors, blocks)):
                attention = f"{blocks}.{block}.attention"
                parts = tuple(f"{attention}.to_{letter}" for letter in "qkv")
                modules |= {
                    f"{attention}.qkv": Parts(modules=parts),
                    f"{attention}.out": f"{attention}.to_out.0",
                    f"{attention}.q_norm": f"{attention}.norm_q",
                    f"{attention}.k_norm": f"{attention}.norm_k",
                }
        # A norm that the architecture has inherited and does not use; diffusers leaves it out too.
        return renamed({name: each for name, each in tensors.items() if name != "norm_final.weight"}, modules)


def _names(config: Config) -> ZImageNames:
    del config
    return ZImageNames()


def _structure(tensors: expression.Tensors, config: Config) -> Config:
    """Read the fields of a configuration that show in the tensors."""
    del config
    width = rows_of(tensors, "x_embedder.weight")
    head = rows_of(tensors, "layers.0.attention.q_norm.weight")
    heads = width // head if width and head else None
    return known(
        dim=width,
        n_layers=count_of(tensors, "layers"),
        n_refiner_layers=count_of(tensors, "noise_refiner"),
        n_heads=heads,
        n_kv_heads=heads,
        cap_feat_dim=columns_of(tensors, "cap_embedder.1.weight"),
    )


FAMILY = Family(
    name="z-image",
    title="Z-Image",
    pipelines=("ZImagePipeline", "ZImageImg2ImgPipeline"),
    parts=(
        Part(name="text_encoder", component="text_encoder", kinds=(QWEN3_LAST_BUT_ONE,), role="text"),
        Part(name="transformer", component="transformer", kinds=(Z_IMAGE,), role="denoiser"),
        Part(name="vae_encoder", component="vae", kinds=(ENCODER,), role="encoder"),
        Part(name="vae_decoder", component="vae", kinds=(DECODER,), role="decoder"),
    ),
    metadata=("scheduler", "tokenizer"),
    tokenizers=("tokenizer",),
    recipe=recipe,
    single_file=SingleFileLayout(
        components=(
            FileComponent(
                name="transformer",
                prefixes=("model.diffusion_model.", ""),
                # Lumina 2, whose names are the same, has its modulation in another place.
                marker="layers.0.adaLN_modulation.0.weight",
                names=_names,
            ),
            original.VAE_IN_FILE,
        ),
        denoiser="transformer",
        recognise=no_differences,
        # Qwen's tokenizer does not come with the program.
        small_files=None,
        structure=_structure,
        fixed=("cap_feat_dim",),
    ),
    shipped=(
        ShippedGraph(label=_LABEL, kind=QWEN3_LAST_BUT_ONE, config=QWEN3_4B),
        # Every field that shapes the graph has its default.
        ShippedGraph(label=_LABEL, kind=Z_IMAGE, config={}),
        ShippedGraph(label=_LABEL, kind=ENCODER, config=VAE),
        ShippedGraph(label=_LABEL, kind=DECODER, config=VAE),
    ),
)

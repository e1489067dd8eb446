"""Stable Diffusion 3 and 3.5: text and image in one transformer, with or without T5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from conversions.families.shared import original_layout as original
from conversions.families.shared.clip_files import tokenizer_files
from conversions.families.shared.clip_prompts import layers_of, states_before_last
from conversions.families.shared.encoders_in_file import (
    CLIP_G_IN_FILE,
    CLIP_L_PROJECTED_IN_FILE,
    t5_in_file,
)
from conversions.families.shared.latent_recipe import LatentRecipe
from conversions.families.shared.sd3_names import SD3Names, structure_of_file
from conversions.families.stable_diffusion_xl import SDXL_TEXT, SDXL_TEXT_2, VAE_PARTS
from conversions.families.z_image import VAE
from conversions.family import Family, Part, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.recipe import (
    Conditioning,
    Defaults,
    Floats,
    GuidedPrompts,
    ImageSize,
    NoiseLevels,
    PromptEncoder,
    Run,
    Task,
)
from conversions.single_file_layout import (
    FileComponent,
    FileFacts,
    SingleFileLayout,
    SmallFiles,
    no_differences,
)
from conversions.submodels import clip_text, t5_encoder
from conversions.submodels.clip_text import CLIP_TEXT_PROJECTED
from conversions.submodels.sd3_transformer import DEFAULTS, SD3_TRANSFORMER
from conversions.submodels.t5_encoder import T5_ENCODER
from conversions.weights import expression

_CLIP = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))
_T5, _T5_TOKENIZER = "text_encoder_3", "tokenizer_3"
_CLIP_LENGTH = 77
# Source: the defaults of StableDiffusion3Pipeline.__call__ in diffusers 0.42.
_T5_LENGTH = 256
_STEPS = 28
_GUIDANCE = 7.0
# Source: the model card of stabilityai/stable-diffusion-3.5-medium; norms of queries and keys tell 3.5 apart.
_GUIDANCE_OF_3_5 = 4.5


@dataclass(frozen=True, kw_only=True)
class SD3Recipe(LatentRecipe):
    """Text to image, image to image and inpainting, as diffusers' StableDiffusion3 pipelines do it."""

    prediction: ClassVar[str] = "out_hidden_states"
    strength: ClassVar[Mapping[Task, float]] = {"image-to-image": 0.6, "inpainting": 0.6}

    def _transformer(self, field: str) -> int:
        given = self.config_of("transformer").get(field)
        return int(DEFAULTS[field] if given is None else given)

    @property
    def channels(self) -> int:
        """Of a latent image."""
        return self._transformer("in_channels")

    @property
    def unsupported(self) -> str:
        """Why no images can be made; a transformer with other inputs belongs to another pipeline."""
        out = self.config_of("transformer").get("out_channels") or self.channels
        if out != self.channels:
            return (
                f"The transformer has {self.channels} input channels and {out} output channels; "
                "this pipeline makes images where they are equally many."
            )
        return self._mismatched_encoders

    @property
    def _mismatched_encoders(self) -> str:
        """Which encoder does not fit: CLIP's states are zero-padded to the transformer's width, T5's not."""
        wanted = self._transformer("joint_attention_dim")
        clip = sum(clip_text.width_of(self.config_of(name)) for name, _ in _CLIP)
        if clip > wanted:
            return f"The CLIP encoders' states are {clip} wide, but the transformer reads at most {wanted}."
        if _T5 in self.configs.components and (t5 := t5_encoder.width_of(self.config_of(_T5))) != wanted:
            return f"The T5 encoder's states are {t5} wide, but the transformer reads {wanted}."
        pooled = sum(clip_text.projected_width_of(self.config_of(name)) for name, _ in _CLIP)
        if pooled != (read := self._transformer("pooled_projection_dim")):
            return f"The CLIP encoders' pooled states are {pooled} wide, but the transformer reads {read}."
        return ""

    @property
    def tasks(self) -> frozenset[Task]:
        """Everything; a mask is applied to the latents."""
        return frozenset({"text-to-image", "image-to-image", "inpainting"})

    @property
    def defaults(self) -> Defaults:
        """What images are when a request does not say."""
        is_3_5 = bool(self.config_of("transformer").get("qk_norm"))
        return Defaults(
            width=self.native.width,
            height=self.native.height,
            steps=_STEPS,
            guidance_scale=_GUIDANCE_OF_3_5 if is_3_5 else _GUIDANCE,
            strength=self.strength,
        )

    @property
    def native(self) -> ImageSize:
        """The size of the images that the checkpoint was trained on."""
        side = int(self.config_of("transformer").get("sample_size") or 128)
        return ImageSize(width=side * self.latents.downscale, height=side * self.latents.downscale)

    @property
    def size_multiple(self) -> int:
        """One patch's width in pixels."""
        return self.latents.downscale * self._transformer("patch_size")

    @property
    def largest_side(self) -> int:
        """As far as the table of positions reaches."""
        return self.size_multiple * self._transformer("pos_embed_max_size")

    @property
    def prompt_length(self) -> int:
        """Tokens that CLIP's text encoders take at once."""
        return _CLIP_LENGTH

    @property
    def most_clip_skip(self) -> int:
        """The most layers that CLIP's encoders can leave out, beside the last, which is never used."""
        return max(min(layers_of(self.configs.components[name]) for name, _ in _CLIP) - 2, 0)

    def noise_levels(self, steps: int, size: ImageSize) -> NoiseLevels:
        """Return the number of patches, for schedulers whose shift depends on it."""
        del steps
        rows, columns = size.height // self.size_multiple, size.width // self.size_multiple
        return NoiseLevels(image_tokens=rows * columns)

    def sizes(self, role: str, size: ImageSize) -> Mapping[str, int]:
        """Return the size of each free dimension of a submodel's inputs, by the submodel's role."""
        match role:
            case "text":
                return {"batch": size.images, "sequence": _CLIP_LENGTH, "tokens": _T5_LENGTH}
            case "denoiser":
                latents = self.latent_sizes(size)
                return {**latents, "batch": 2 * size.images, "sequence": _CLIP_LENGTH + _T5_LENGTH}
            case _:
                return self.autoencoder_sizes(role, size)

    def encode(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts) -> Conditioning:
        """Turn the prompts into states ``[rows, tokens, width]`` and a pooled state ``[rows, width]``.

        Source: ``encode_prompt`` of diffusers' StableDiffusion3Pipeline: the states before the last layer of
        both of CLIP's encoders side by side, filled up with zeros to T5's width, and T5's states behind them;
        both pooled states side by side.
        """
        texts = self.texts(request)
        chunks = max(len(prompts.encode(text, tokenizer).tokens) for text in texts for _, tokenizer in _CLIP)
        states, pooled = [], []
        t5 = self._encode_t5(run, prompts, texts)
        for text, words in zip(texts, t5, strict=True):
            hidden, summaries = states_before_last(
                run, prompts, text, _CLIP, self.configs.components, chunks=chunks, skip=request.clip_skip
            )
            missing = words.shape[-1] - hidden.shape[-1]
            hidden = np.pad(hidden, ((0, 0), (0, 0), (0, missing)))
            both = np.concatenate([hidden, words], axis=1)
            states.append(np.repeat(both, request.size.images, axis=0))
            pooled.append(np.repeat(np.concatenate(summaries, axis=-1), request.size.images, axis=0))
        inputs = {
            "encoder_hidden_states": np.concatenate(states),
            "pooled_projections": np.concatenate(pooled),
        }
        return Conditioning(size=request.size, runs=(inputs,), branches=len(texts))

    def _encode_t5(self, run: Run, prompts: PromptEncoder, texts: tuple[str, ...]) -> list[Floats]:
        """Return each prompt's states ``[1, tokens, width]``; zeros without T5."""
        if _T5 not in self.configs.components:
            width = self._transformer("joint_attention_dim")
            return [np.zeros((1, _T5_LENGTH, width), np.float32)] * len(texts)
        chunks = max(len(prompts.encode(text, _T5_TOKENIZER, length=_T5_LENGTH).tokens) for text in texts)
        found = []
        for text in texts:
            encoded = prompts.encode(text, _T5_TOKENIZER, length=_T5_LENGTH, at_least=chunks)
            states = run(_T5, {"input_ids": encoded.tokens})["last_hidden_state"]
            found.append(prompts.embed(states, encoded))
        return found


def recipe(configs: PipelineConfigs) -> SD3Recipe:
    """Return how images are made with a checkpoint of this family."""
    return SD3Recipe(configs=configs)


# Source: transformer/config.json and text_encoder_3/config.json of stabilityai/stable-diffusion-3.5-medium.
# Its second text encoder is XL's, its autoencoder has Z-Image's graphs.
SD35_MEDIUM: Config = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
}
SD3_MEDIUM: Config = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
SD35_LARGE: Config = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}
T5_XXL: Config = {
    "d_model": 4096,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
_TEXT: Config = {**SDXL_TEXT, "projection_dim": 768}


def _names(config: Config) -> SD3Names:
    del config
    return SD3Names()


def _small_files(transformer: expression.Tensors, facts: FileFacts) -> SmallFiles:
    """Return the small files of a file with CLIP's encoders; T5's tokenizer does not come with the program.

    Source: the files of stabilityai/stable-diffusion-3.5-medium.
    """
    scheduler: dict[str, Any] = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": 3.0,
    }
    clip, tokenizer = "CLIPTextModelWithProjection", ("transformers", "CLIPTokenizer")
    classes = {
        "text_encoder": ("transformers", clip),
        "text_encoder_2": ("transformers", clip),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "transformer": ("diffusers", "SD3Transformer2DModel"),
        "vae": ("diffusers", "AutoencoderKL"),
    }
    has_t5 = _T5_IN_FILE.prefix_in(facts.tensors) is not None
    return SmallFiles(
        index={
            **original.index_of("StableDiffusion3Pipeline", scheduler["_class_name"], classes),
            _T5: [None, None],
            _T5_TOKENIZER: [None, None],
        },
        scheduler=scheduler,
        components={
            "text_encoder": original.text_config(_TEXT, clip),
            "text_encoder_2": original.text_config(SDXL_TEXT_2, clip),
            "transformer": {
                "_class_name": "SD3Transformer2DModel",
                **DEFAULTS,
                **structure_of_file(transformer, {}),
                "sample_size": 128,
            },
            "vae": {
                **original.vae_config(VAE, side=1024, scaling_factor=1.5305),
                "shift_factor": 0.0609,
            },
        },
        others={**tokenizer_files("tokenizer"), **tokenizer_files("tokenizer_2", padding="!")},
        notice="T5 is left out: the file does not hold its tokenizer, which a base would give."
        if has_t5
        else "",
    )


_T5_IN_FILE = t5_in_file(_T5)

FAMILY = Family(
    name="stable-diffusion-3",
    title="Stable Diffusion 3",
    pipelines=(
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
        "ORTStableDiffusion3Pipeline",
    ),
    parts=(
        Part(name="text_encoder", component="text_encoder", kinds=(CLIP_TEXT_PROJECTED,), role="text"),
        Part(name="text_encoder_2", component="text_encoder_2", kinds=(CLIP_TEXT_PROJECTED,), role="text"),
        Part(
            name=_T5,
            component=_T5,
            kinds=(T5_ENCODER,),
            role="text",
            optional=True,
            called="t5",
            tokenizer=_T5_TOKENIZER,
        ),
        Part(name="transformer", component="transformer", kinds=(SD3_TRANSFORMER,), role="denoiser"),
        *VAE_PARTS,
    ),
    metadata=("scheduler", "tokenizer", "tokenizer_2", "tokenizer_3"),
    tokenizers=("tokenizer", "tokenizer_2", "tokenizer_3"),
    recipe=recipe,
    single_file=SingleFileLayout(
        components=(
            CLIP_L_PROJECTED_IN_FILE,
            CLIP_G_IN_FILE,
            _T5_IN_FILE,
            FileComponent(
                name="transformer",
                prefixes=("model.diffusion_model.", ""),
                marker="joint_blocks.0.x_block.attn.qkv.weight",
                names=_names,
            ),
            original.VAE_IN_FILE,
        ),
        denoiser="transformer",
        recognise=no_differences,
        small_files=_small_files,
        structure=structure_of_file,
        fixed=("in_channels", "joint_attention_dim", "pooled_projection_dim"),
    ),
    shipped=(
        ShippedGraph(label="Stable Diffusion 3", kind=CLIP_TEXT_PROJECTED, config=_TEXT),
        ShippedGraph(label="Stable Diffusion 3", kind=T5_ENCODER, config=T5_XXL),
        ShippedGraph(label="Stable Diffusion 3 medium", kind=SD3_TRANSFORMER, config=SD3_MEDIUM),
        ShippedGraph(label="Stable Diffusion 3.5 medium", kind=SD3_TRANSFORMER, config=SD35_MEDIUM),
        ShippedGraph(label="Stable Diffusion 3.5 large", kind=SD3_TRANSFORMER, config=SD35_LARGE),
    ),
)

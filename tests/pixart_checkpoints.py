"""Small PixArt checkpoints with random weights, and images from images, by the libraries' own classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from conversions.recipe import Floats, InitialImage
from sdsetup.imaging.request import Request
from tests.conversions.tokenizers import t5_vocabulary
from tests.sd3_checkpoints import T5, random_weights, write_json

TRANSFORMER = {
    "num_attention_heads": 4,
    "attention_head_dim": 24,
    "num_layers": 2,
    "cross_attention_dim": 96,
    "caption_channels": 96,
    "sample_size": 16,
    "interpolation_scale": 2,
    "use_additional_conditions": False,
}
# As many latents as tell diffusers that the denoiser reads the image's size.
ALPHA_TRANSFORMER = {
    **TRANSFORMER,
    "sample_size": 128,
    "interpolation_scale": None,
    "use_additional_conditions": None,
}
VAE = {
    "block_out_channels": (16, 16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 128,
    "scaling_factor": 0.13025,
}
SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "num_train_timesteps": 1000,
    "solver_order": 2,
}


@dataclass(frozen=True, kw_only=True)
class PixArtVariant:
    """A tiny PixArt.

    Attributes:
        pipeline: Class of its pipeline.
        transformer: Configuration of its denoiser.
        transformer_class: What its files call the denoiser's class.
        side: In pixels, of the images that it was made for.
    """

    pipeline: str = "PixArtSigmaPipeline"
    transformer: dict[str, Any] = field(default_factory=lambda: TRANSFORMER)
    transformer_class: str = "PixArtTransformer2DModel"
    side: int = 128

    def write(self, folder: Path, seed: int) -> None:
        """Write the checkpoint; equal seeds give equal files."""
        import torch
        from diffusers import AutoencoderKL, PixArtTransformer2DModel
        from transformers import T5Config, T5EncoderModel

        torch.manual_seed(seed)
        index: dict[str, Any] = {
            "_class_name": self.pipeline,
            "_diffusers_version": "0.28.0",
            "scheduler": ["diffusers", SCHEDULER["_class_name"]],
            "text_encoder": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "T5Tokenizer"],
            "transformer": ["diffusers", self.transformer_class],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        transformer = random_weights(PixArtTransformer2DModel(**self.transformer))
        transformer.save_pretrained(folder / "transformer")
        if self.transformer_class != "PixArtTransformer2DModel":
            legacy = {
                "double_self_attention": False,
                "num_vector_embeds": None,
                "only_cross_attention": False,
            }
            config = {**dict(transformer.config), **legacy, "_class_name": self.transformer_class}
            write_json(folder / "transformer" / "config.json", config)
        AutoencoderKL(**VAE).save_pretrained(folder / "vae")
        count = t5_vocabulary.write(folder / "tokenizer")
        encoder = random_weights(T5EncoderModel(T5Config(**T5, vocab_size=count)))
        encoder.save_pretrained(folder / "text_encoder")
        write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
        write_json(folder / "model_index.json", index)


PIXART_VARIANTS = {
    # Published with the older class.
    "pixart sigma": PixArtVariant(transformer_class="Transformer2DModel"),
    "pixart alpha": PixArtVariant(pipeline="PixArtAlphaPipeline", transformer=ALPHA_TRANSFORMER, side=1024),
}
"""A tiny checkpoint of each form of PixArt."""


def images_from_an_image(
    checkpoint: Path, request: Request, start: Floats, initial: InitialImage
) -> np.ndarray[Any, Any]:
    """Make latents from an image with diffusers' parts, in the order of its pipelines of Stable Diffusion.

    Diffusers has no such pipeline for PixArt.

    Source: StableDiffusionImg2ImgPipeline and StableDiffusionInpaintPipeline of diffusers 0.42.
    """
    import diffusers
    import torch

    pipeline = diffusers.DiffusionPipeline.from_pretrained(checkpoint)
    scheduler, images = pipeline.scheduler, request.images
    scheduler.set_timesteps(request.steps)
    first = request.steps - int(request.steps * request.strength)
    scheduler.set_begin_index(first)
    noise, clean = torch.from_numpy(start), torch.from_numpy(initial.latents)
    latents = scheduler.add_noise(clean, noise, scheduler.timesteps[first : first + 1])
    size = [[float(request.height), float(request.width)]] * 2 * images
    reads_size = pipeline.transformer.use_additional_conditions
    conditions = {
        "resolution": torch.tensor(size) if reads_size else None,
        "aspect_ratio": torch.tensor([[height / width] for height, width in size]) if reads_size else None,
    }
    with torch.inference_mode():
        states, kept, away, away_kept = pipeline.encode_prompt(
            [request.prompt] * images, negative_prompt=[request.negative_prompt] * images
        )
        for place in range(first, request.steps):
            time = scheduler.timesteps[place]
            predicted = pipeline.transformer(
                torch.cat([latents] * 2),
                encoder_hidden_states=torch.cat([away, states]),
                encoder_attention_mask=torch.cat([away_kept, kept]),
                timestep=time.expand(2 * images),
                added_cond_kwargs=conditions,
                return_dict=False,
            )[0]
            unguided, guided = predicted[:, : latents.shape[1]].chunk(2)
            predicted = unguided + request.guidance_scale * (guided - unguided)
            latents = scheduler.step(predicted, time, latents, return_dict=False)[0]
            if initial.mask is not None:
                hidden, noisy = torch.from_numpy(initial.mask), clean
                if place + 1 < request.steps:
                    noisy = scheduler.add_noise(clean, noise, scheduler.timesteps[place + 1 : place + 2])
                latents = (1 - hidden) * noisy + hidden * latents
    return np.asarray(latents)

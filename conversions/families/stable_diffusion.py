"""Stable Diffusion 1.x and checkpoints with the same parts."""

from conversions.family import Family
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.safety_checker import SAFETY_CHECKER
from conversions.submodels.unet import UNET
from conversions.submodels.vae import DECODER, ENCODER

FAMILY = Family(
    name="stable-diffusion",
    pipelines=(
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
    ),
    submodels=(CLIP_TEXT, UNET, ENCODER, DECODER, SAFETY_CHECKER),
    optional=frozenset({"safety_checker"}),
)

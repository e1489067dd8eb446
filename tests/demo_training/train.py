"""Train the demo checkpoint from nothing: ``python -m tests.demo_training.train OUTPUT``."""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer

from tests.demo_training.diffusion import (
    ROUNDS,
    Denoiser,
    draw_pool,
    new_denoiser,
    new_scheduler,
    train_denoiser,
)
from tests.demo_training.examine import examine
from tests.demo_training.vae import encoder, refine_decoder, save_vae, train_vae
from tests.demo_training.vocabulary import write_tokenizer

VAE_STEPS, DECODER_STEPS, VAE_SCENES = 4620, 10_673, 100_000
SCENES = 409_600
"""How many are drawn for each round of the text encoder and the UNet."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="the folder that becomes the checkpoint")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of all steps and scenes; less is a rehearsal"
    )
    parser.add_argument("--examined", type=int, default=400, help="held-out captions to judge at the end")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    started = time.monotonic()
    tokenizer = write_tokenizer(options.output / "tokenizer")

    def part(count: int) -> int:
        return max(1, round(count * options.share))

    vae = train_vae(part(VAE_STEPS), part(VAE_SCENES), device)
    vae = refine_decoder(save_vae(vae, options.output / "vae"), part(DECODER_STEPS), part(VAE_SCENES))
    encode = encoder(vae)
    denoiser, predict = new_denoiser(tokenizer, device)
    for each in ROUNDS:
        plan = replace(each, steps=part(each.steps))
        train_denoiser(denoiser, predict, draw_pool(part(SCENES), tokenizer, device, plan), encode, plan)
    pipeline = save(options.output, vae, denoiser, tokenizer)
    print(f"trained in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    examine(pipeline.to(device), options.examined)


def save(
    folder: Path, vae: AutoencoderKL, denoiser: Denoiser, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """Write the checkpoint in float16 and load it back in float32, as anyone would."""
    tokenizer_files = {file.name: file.read_bytes() for file in (folder / "tokenizer").iterdir()}
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=denoiser.text_encoder.half(),
        tokenizer=tokenizer,
        unet=denoiser.unet.half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    # Libraries write tokenizers each in their own newest form; the two plain files are what all of them read.
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    for name, content in tokenizer_files.items():
        (folder / "tokenizer" / name).write_bytes(content)
    return StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)


if __name__ == "__main__":
    main()

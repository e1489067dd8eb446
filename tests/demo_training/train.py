"""Train the demo checkpoint from nothing: ``python -m tests.demo_training.train OUTPUT``."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer

from tests.demo_training.diffusion import Denoiser, draw_pool, new_denoiser, new_scheduler, train_denoiser
from tests.demo_training.examine import examine
from tests.demo_training.schedule import by_steps
from tests.demo_training.vae import encoder, refine_decoder, save_vae, train_vae
from tests.demo_training.vocabulary import write_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="the folder that becomes the checkpoint")
    parser.add_argument("--vae-steps", type=int, default=4620)
    parser.add_argument("--decoder-steps", type=int, default=10_673)
    parser.add_argument("--steps", type=int, default=4444, help="steps of the text encoder and the UNet")
    parser.add_argument(
        "--more-steps", type=int, default=6506, help="their steps of larger batches after that"
    )
    parser.add_argument("--pool", type=int, default=409_600, help="scenes drawn for them")
    parser.add_argument("--examined", type=int, default=400, help="held-out captions to judge at the end")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    started = time.monotonic()
    tokenizer = write_tokenizer(options.output / "tokenizer")
    vae = save_vae(train_vae(by_steps(options.vae_steps), device), options.output / "vae")
    vae = refine_decoder(vae, by_steps(options.decoder_steps))
    denoiser, predict = new_denoiser(tokenizer, device)
    pool = draw_pool(options.pool, tokenizer, device)
    encode = encoder(vae)
    average = train_denoiser(denoiser, predict, pool, encode, by_steps(options.steps))
    denoiser.load_state_dict(average.state_dict())
    del pool  # the card need not hold both
    pool = draw_pool(options.pool, tokenizer, device, seed=5)
    average = train_denoiser(
        denoiser, predict, pool, encode, by_steps(options.more_steps),
        batch=1024, learning_rate=7e-4, warmup_steps=60, averaging=0.995,
    )  # fmt: skip
    pipeline = save(options.output, vae, average, tokenizer)
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

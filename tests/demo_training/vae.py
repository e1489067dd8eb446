"""The autoencoder: images of 128x128 to latents of 16x16x4 and back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from tests.demo_training.schedule import pace
from tests.demo_training.world import draw_bytes, from_bytes, sample

SCALING_FACTOR = 0.18215
"""Stable Diffusion 1's own, so that a tool that has it built in shows the right image here too."""

_BATCH = 64
_LEARNING_RATE = 1e-3
_WARMUP_STEPS = 200
_KL_WEIGHT = 1e-6
_LATENT_NOISE = 0.05
"""Noise on the latents in training, as a share of their deviation: the decoder learns to forgive errors."""


def new_vae() -> AutoencoderKL:
    """The untrained autoencoder."""
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=16,
        latent_channels=4,
        sample_size=128,
        scaling_factor=SCALING_FACTOR,
    )


def train_vae(steps: int, pool: int, device: torch.device) -> AutoencoderKL:
    """Train from nothing; the result's scaled latents have mean 0 and deviation 1 in every channel.

    Args:
        steps: How long.
        pool: Images to draw, once, before the training.
        device: Where to train.
    """
    torch.manual_seed(1)
    generator = torch.Generator(device).manual_seed(1)
    images = draw_bytes(sample(pool, seed=1), generator)
    vae = new_vae().to(device, memory_format=torch.channels_last)

    def objective(batch_images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        posterior = vae.encode(batch_images).latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        latents = mean + posterior.std.float() * noise[0] + _LATENT_NOISE * mean.std() * noise[1]
        loss, error = _difference(vae.decode(latents).sample.float(), batch_images)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return loss + _KL_WEIGHT * divergence, error

    _fit("vae", list(vae.parameters()), objective, steps, images, generator)
    _standardize(vae, from_bytes(images[:1024]))
    return vae.eval()


def refine_decoder(vae: AutoencoderKL, steps: int, pool: int) -> AutoencoderKL:
    """Train the decoder further while the encoder, and so what the diffusion learns, stays as it is.

    Args:
        vae: Trained; its decoder is changed in place.
        steps: How long.
        pool: Images to draw, once, before the training.
    """
    generator = torch.Generator(vae.device).manual_seed(2)
    images = draw_bytes(sample(pool, seed=2), generator)
    vae.requires_grad_(False)
    trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)

    def objective(batch_images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mean = vae.encode(batch_images).latent_dist.mean.float()
        latents = mean + noise[0] * (_LATENT_NOISE / SCALING_FACTOR)
        return _difference(vae.decode(latents).sample.float(), batch_images)

    _fit("decoder", trained, objective, steps, images, generator)
    return vae.eval()


def _difference(restored: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """The loss (absolute error of pixels and their differences: edges matter) and the squared error."""
    loss = (restored - images).abs().mean()
    for axis in (2, 3):
        loss = loss + (restored.diff(dim=axis) - images.diff(dim=axis)).abs().mean()
    return loss, (restored - images).square().mean()


def _fit(
    name: str,
    parameters: list[nn.Parameter],
    objective: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    steps: int,
    images: Tensor,
    generator: torch.Generator,
) -> None:
    device, compiled = images.device, torch.compile(objective, dynamic=False)
    optimizer = torch.optim.AdamW(parameters, _LEARNING_RATE, (0.9, 0.99), fused=device.type == "cuda")
    started = time.monotonic()
    for step in range(steps):
        done = step / steps
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * pace(step, done, _WARMUP_STEPS)
        rows = torch.randint(len(images), (_BATCH,), device=device, generator=generator)
        noise = torch.randn(2, _BATCH, 4, 16, 16, device=device, generator=generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, error = compiled(from_bytes(images[rows]), noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 200 == 0:
            decibels, seconds = -10 * math.log10(error.item() / 4), time.monotonic() - started
            print(f"{name} {step:6d} {done:5.1%}  {decibels:5.2f} dB  {seconds:6.1f} s", flush=True)
    print(f"{name}: {steps} steps in {time.monotonic() - started:.1f} s", flush=True)


@torch.no_grad()
def _standardize(vae: AutoencoderKL, images: Tensor) -> None:
    """Fold each latent channel's mean and deviation into the two 1x1 convolutions around the latents.

    Afterwards ``latent * SCALING_FACTOR`` has mean 0 and deviation 1 per channel; images stay the same.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(128)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * SCALING_FACTOR
    into, out_of = vae.quant_conv, vae.post_quant_conv
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight *= deviation[None, :, None, None]
    into.bias[:4] = (into.bias[:4] - mean) / deviation
    into.weight[:4] /= deviation[:, None, None, None]
    into.bias[4:] -= 2 * deviation.log()


def encoder(vae: AutoencoderKL) -> Callable[[Tensor], Tensor]:
    """A function from images to scaled latents (the posterior's mean), float32 ``[n, 4, 16, 16]``."""

    def encode(images: Tensor) -> Tensor:
        return vae.encode(images).latent_dist.mean.float() * SCALING_FACTOR

    compiled = torch.compile(encode, dynamic=False)

    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        kind = images.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            return compiled(images)

    return run


def save_vae(vae: AutoencoderKL, folder: Path) -> AutoencoderKL:
    """Write in float16, and return it in float32 as read back: training goes on with what is shipped."""
    device = vae.device
    vae.half().save_pretrained(folder)
    return load_vae(folder, device)


def load_vae(folder: Path, device: torch.device) -> AutoencoderKL:
    """Read the trained autoencoder in float32."""
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    vae.register_to_config(_name_or_path="")  # it would be written, and is the folder's name on this machine
    return vae.to(device, memory_format=torch.channels_last).eval()

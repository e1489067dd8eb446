"""The text encoder and the UNet, trained together from nothing, with guidance dropout."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.demo_training.schedule import Progress, pace
from tests.demo_training.vocabulary import MODEL_MAX_LENGTH
from tests.demo_training.world import captions, draw_bytes, from_bytes, sample

_WIDTH = 128
_BATCH = 256
_ENCODED_AT_ONCE = 1024
_LEARNING_RATE = 8e-4
_WARMUP_STEPS = 500
_EMPTY_CAPTIONS = 0.1
_AVERAGING = 0.9993


class Denoiser(nn.Module):
    """Token ids and noisy latents to the predicted velocity: all that the diffusion stage trains."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=_WIDTH,
                intermediate_size=4 * _WIDTH,
                projection_dim=_WIDTH,
                num_hidden_layers=4,
                num_attention_heads=4,
                max_position_embeddings=MODEL_MAX_LENGTH,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(96, 128),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=_WIDTH,
            attention_head_dim=4,
            norm_num_groups=16,
        )

    def forward(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predict the velocity, ``[n, 4, 16, 16]``, from tokens int64 ``[n, 77]``."""
        text = self.text_encoder(input_ids=tokens).last_hidden_state
        return self.unet(latents, timesteps, encoder_hidden_states=text).sample


Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Scenes ready to train on.

    Attributes:
        pictures: uint8 ``[n, 3, 128, 128]``.
        tokens: int16 ``[n, 77]``.
        empty: Tokens of the empty caption, int64 ``[1, 77]``.
    """

    pictures: Tensor
    tokens: Tensor
    empty: Tensor


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule; the model predicts velocity, as Stable Diffusion 2.1 does."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def new_denoiser(
    tokenizer: CLIPTokenizer, device: torch.device, *, batch: int = _BATCH, compiled: bool = True
) -> tuple[Denoiser, Predict]:
    """The untrained denoiser, and the function that runs it, already compiled for batches of that size."""
    torch.manual_seed(3)
    denoiser = Denoiser(tokenizer).to(device, memory_format=torch.channels_last).train()
    inner = torch.compile(denoiser, dynamic=False) if compiled else denoiser

    def predict(latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return inner(latents.contiguous(memory_format=torch.channels_last), timesteps, tokens).float()

    if compiled:
        nothing = torch.zeros(batch, dtype=torch.int64, device=device)
        still = torch.zeros(batch, 4, 16, 16, device=device)
        predict(still, nothing, nothing[:, None].repeat(1, MODEL_MAX_LENGTH)).sum().backward()
        denoiser.zero_grad(set_to_none=True)
    return denoiser, predict


def draw_pool(count: int, tokenizer: CLIPTokenizer, device: torch.device, *, seed: int = 3) -> Pool:
    """Draw and tokenize scenes for the training."""
    scenes = sample(count, seed=seed)
    return Pool(
        pictures=draw_bytes(scenes, torch.Generator(device).manual_seed(3)),
        tokens=_tokens(tokenizer, captions(scenes)).short().to(device),
        empty=_tokens(tokenizer, [""]).to(device),
    )


def train_denoiser(
    denoiser: Denoiser,
    predict: Predict,
    pool: Pool,
    encode: Callable[[Tensor], Tensor],
    progress: Progress,
    *,
    batch: int = _BATCH,
    learning_rate: float = _LEARNING_RATE,
    warmup_steps: int = _WARMUP_STEPS,
    averaging: float = _AVERAGING,
) -> Denoiser:
    """Train and return the running average of the weights.

    Args:
        denoiser: Its parameters are trained in place.
        predict: Runs the denoiser.
        pool: What to train on.
        encode: Pictures to scaled latents.
        progress: When to stop, and how far the training is.
        batch: Scenes a step.
        learning_rate: The highest.
        warmup_steps: Steps until it is reached.
        averaging: How much of the running average a step keeps.
    """
    device = pool.pictures.device
    generator = torch.Generator(device).manual_seed(4)
    latents = encode_pool(pool, encode)
    alphas = new_scheduler().alphas_cumprod.to(device)
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        denoiser.parameters(), learning_rate, (0.9, 0.99), weight_decay=0.01, fused=device.type == "cuda"
    )
    step, started, recent = 0, time.monotonic(), torch.zeros((), device=device)
    while (done := progress(step)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * pace(step, done, warmup_steps)
        rows = torch.randint(len(latents), (batch,), device=device, generator=generator)
        clean = latents[rows].float()
        dropped = torch.rand(batch, 1, device=device, generator=generator) < _EMPTY_CAPTIONS
        text = torch.where(dropped, pool.empty, pool.tokens[rows].long())
        noise = torch.randn(clean.shape, device=device, generator=generator)
        timesteps = torch.randint(len(alphas), (batch,), device=device, generator=generator)
        signal = alphas[timesteps].sqrt()[:, None, None, None]
        spread = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
        predicted = predict(signal * clean + spread * noise, timesteps, text)
        loss = nn.functional.mse_loss(predicted, signal * noise - spread * clean)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        _follow(average, denoiser, min(averaging, (step + 1) / (step + 10)))
        recent = recent.lerp(loss.detach(), 1 / min(step + 1, 200))
        if step % 500 == 0:
            seconds = time.monotonic() - started
            print(f"diffusion {step:6d} {done:5.1%}  loss {recent.item():.4f}  {seconds:6.1f} s", flush=True)
        step += 1
    print(
        f"diffusion: {step} steps in {time.monotonic() - started:.1f} s, loss {recent.item():.4f}", flush=True
    )
    return average


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, share: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - share)


def encode_pool(pool: Pool, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Scaled latents of all pictures, float16 ``[n, 4, 16, 16]``."""
    started = time.monotonic()
    parts = pool.pictures.split(_ENCODED_AT_ONCE)
    latents = torch.cat([encode(from_bytes(part)).half() for part in parts])
    deviation = latents.float().std().item()
    print(
        f"encoded {len(latents)}: {time.monotonic() - started:.1f} s, deviation {deviation:.3f}", flush=True
    )
    return latents


def _tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return tokenizer(
        texts, padding="max_length", max_length=MODEL_MAX_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids

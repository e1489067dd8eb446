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

from tests.demo_training.schedule import pace
from tests.demo_training.vocabulary import MODEL_MAX_LENGTH
from tests.demo_training.world import captions, draw_bytes, from_bytes, sample

_WIDTH = 128
_ENCODED_AT_ONCE = 1024
_EMPTY_CAPTIONS = 0.1


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of training the text encoder and the UNet.

    Attributes:
        steps: How many.
        batch: Scenes a step.
        learning_rate: The highest.
        warmup_steps: Steps until it is reached.
        averaging: How much of the running average of the weights a step keeps.
        seed: Of the scenes.
        leftward: How many of their relations say "left of", as a share.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup_steps: int
    averaging: float
    seed: int
    leftward: float


# While both sides are equally frequent, neither the order of two things nor the word between them tells alone
# where a thing belongs, only both together, and 10,950 steps did not find that out. So the order is learned
# first, from scenes where the first thing is mostly on the left, and then what "right of" turns around.
ROUNDS = (
    Round(
        steps=4444, batch=256, learning_rate=8e-4, warmup_steps=500, averaging=0.9993, seed=3, leftward=0.9
    ),
    Round(
        steps=6506, batch=1024, learning_rate=7e-4, warmup_steps=60, averaging=0.995, seed=5, leftward=0.5
    ),
)  # fmt: skip


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
        images: uint8 ``[n, 3, 128, 128]``.
        tokens: int16 ``[n, 77]``.
        empty: Tokens of the empty caption, int64 ``[1, 77]``.
    """

    images: Tensor
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


def new_denoiser(tokenizer: CLIPTokenizer, device: torch.device) -> tuple[Denoiser, Predict]:
    """The untrained denoiser, and the function that runs it, compiled."""
    torch.manual_seed(3)
    denoiser = Denoiser(tokenizer).to(device, memory_format=torch.channels_last).train()
    compiled = torch.compile(denoiser, dynamic=False)

    def predict(latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return compiled(latents.contiguous(memory_format=torch.channels_last), timesteps, tokens).float()

    return denoiser, predict


def draw_pool(count: int, tokenizer: CLIPTokenizer, device: torch.device, plan: Round) -> Pool:
    """Draw and tokenize scenes for a round of training."""
    scenes = sample(count, seed=plan.seed, leftward=plan.leftward)
    return Pool(
        images=draw_bytes(scenes, torch.Generator(device).manual_seed(3)),
        tokens=_tokens(tokenizer, captions(scenes)).short().to(device),
        empty=_tokens(tokenizer, [""]).to(device),
    )


def train_denoiser(
    denoiser: Denoiser,
    predict: Predict,
    pool: Pool,
    encode: Callable[[Tensor], Tensor],
    plan: Round,
) -> None:
    """Train in place; the denoiser ends with the running average of its weights.

    Args:
        denoiser: What to train.
        predict: Runs the denoiser.
        pool: What to train on.
        encode: Images to scaled latents.
        plan: How long, and how.
    """
    device = pool.images.device
    generator = torch.Generator(device).manual_seed(4)
    latents = encode_pool(pool, encode)
    alphas = new_scheduler().alphas_cumprod.to(device)
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        denoiser.parameters(), plan.learning_rate, (0.9, 0.99), weight_decay=0.01, fused=device.type == "cuda"
    )
    started, recent = time.monotonic(), torch.zeros((), device=device)
    for step in range(plan.steps):
        done = step / plan.steps
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * pace(step, done, plan.warmup_steps)
        rows = torch.randint(len(latents), (plan.batch,), device=device, generator=generator)
        clean = latents[rows].float()
        dropped = torch.rand(plan.batch, 1, device=device, generator=generator) < _EMPTY_CAPTIONS
        text = torch.where(dropped, pool.empty, pool.tokens[rows].long())
        noise = torch.randn(clean.shape, device=device, generator=generator)
        timesteps = torch.randint(len(alphas), (plan.batch,), device=device, generator=generator)
        signal = alphas[timesteps].sqrt()[:, None, None, None]
        spread = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
        predicted = predict(signal * clean + spread * noise, timesteps, text)
        loss = nn.functional.mse_loss(predicted, signal * noise - spread * clean)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        _follow(average, denoiser, min(plan.averaging, (step + 1) / (step + 10)))
        recent = recent.lerp(loss.detach(), 1 / min(step + 1, 200))
        if step % 500 == 0:
            seconds = time.monotonic() - started
            print(f"diffusion {step:6d} {done:5.1%}  loss {recent.item():.4f}  {seconds:6.1f} s", flush=True)
    seconds = time.monotonic() - started
    print(f"diffusion: {plan.steps} steps in {seconds:.1f} s, loss {recent.item():.4f}", flush=True)
    denoiser.load_state_dict(average.state_dict())


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, share: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - share)


def encode_pool(pool: Pool, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Scaled latents of all images, float16 ``[n, 4, 16, 16]``."""
    started = time.monotonic()
    parts = pool.images.split(_ENCODED_AT_ONCE)
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

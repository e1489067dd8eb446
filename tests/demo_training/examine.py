"""How often a pipeline draws what held-out captions ask for."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from sdsetup.demo.judge import judge
from tests.demo_training.world import captions, sample

KIND_NAMES = ("single", "several", "relation")


def examine(
    pipeline: StableDiffusionPipeline,
    count: int,
    *,
    guidance_scale: float = 7.5,
    steps: int = 20,
    batch: int = 250,
) -> dict[str, Any]:
    """Draw ``count`` held-out captions and print the judged accuracy as JSON.

    Returns:
        Accuracy by kind of caption, and the commonest faults.
    """
    scenes = sample(count, seed=4, unseen=True)
    texts = captions(scenes)
    images = draw_captions(pipeline, texts, guidance_scale=guidance_scale, steps=steps, batch=batch)
    verdicts = [judge(image, text) for image, text in zip(images, texts, strict=True)]
    passed = np.array([verdict.passed for verdict in verdicts])
    result = {
        "guidance_scale": guidance_scale,
        "steps": steps,
        "captions": count,
        "all": round(float(passed.mean()), 4),
    }
    for kind, name in enumerate(KIND_NAMES):
        result[name] = round(float(passed[scenes.kind == kind].mean()), 4)
    faults = Counter(" ".join(verdict.reasons[0].split()[-6:]) for verdict in verdicts if not verdict.passed)
    print(json.dumps({**result, "faults": dict(faults.most_common(8))}), flush=True)
    return result


def draw_captions(
    pipeline: StableDiffusionPipeline, texts: list[str], *, guidance_scale: float, steps: int, batch: int
) -> NDArray[np.uint8]:
    """One image a caption, uint8 ``[n, h, w, 3]``; the noise of caption i comes from seed i."""
    pipeline.set_progress_bar_config(disable=True)
    images = []
    for begin in range(0, len(texts), batch):
        part = texts[begin : begin + batch]
        generators = [torch.Generator().manual_seed(begin + index) for index in range(len(part))]
        drawn = pipeline(
            part,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=generators,
            output_type="np",
        ).images
        images.append((drawn * 255).round().astype(np.uint8))
    return np.concatenate(images)

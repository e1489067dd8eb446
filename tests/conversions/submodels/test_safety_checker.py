"""The safety checker blacks out what diffusers' own blacks out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conversions.submodels.safety_checker import SAFETY_CHECKER
from conversions.verification.metrics import compare
from conversions.verification.reference import make_inputs
from tests.checkpoints import VISION
from tests.sd3_checkpoints import random_weights

IMAGES = 8
CONFIG = {"vision_config": VISION, "projection_dim": 16}


def described(config: dict[str, Any]) -> list[str]:
    specs = (*SAFETY_CHECKER.inputs(config), *SAFETY_CHECKER.outputs(config))
    return [f"{spec.name} {spec.dtype} {' '.join(map(str, spec.shape))}" for spec in specs]


@pytest.fixture
def checker() -> Any:
    """A checker of which some images pass, some show a concept, and some only with special care."""
    import torch
    from torch.nn.functional import normalize

    torch.manual_seed(5)
    made = random_weights(SAFETY_CHECKER.create(CONFIG)).eval()
    arrays = make_inputs(SAFETY_CHECKER, CONFIG, {"batch": IMAGES, "height": 6, "width": 5})
    with torch.inference_mode():
        pooled = made.vision_model(torch.from_numpy(arrays["clip_input"])).pooler_output
        seen = normalize(made.visual_projection(pooled))
        special, plain = (
            (seen @ normalize(embeds).t()).sort(0)
            for embeds in (made.special_care_embeds, made.concept_embeds)
        )
        made.special_care_embeds_weights.fill_(1)
        made.concept_embeds_weights.fill_(1)
        # Half of the images want special care; one concept is shown by an image, two by 0.005 too little.
        made.special_care_embeds_weights[2] = special.values[IMAGES // 2 - 1 : IMAGES // 2 + 1, 2].mean()
        with_care = set(special.indices[IMAGES // 2 :, 2].tolist())
        made.concept_embeds_weights[4] = plain.values[-2:, 4].mean()
        shown = {int(plain.indices[-1, 4])}
        near = [
            (int(plain.indices[-1, concept]), concept)
            for concept in range(plain.values.shape[1])
            if int(plain.indices[-1, concept]) not in shown
            and plain.values[-1, concept] - plain.values[-2, concept] > 1e-4
        ]
        cared = next(each for each in near if each[0] in with_care)
        not_cared = next(each for each in near if each[0] not in with_care)
        for _, concept in (cared, not_cared):
            made.concept_embeds_weights[concept] = plain.values[-1, concept] + 0.01 - 5e-5
        made.expected = shown | {cared[0]}
    return made


@pytest.mark.torch
def test_the_same_images_are_blacked_out_as_by_diffusers(checker: Any) -> None:
    import torch

    from conversions.graphs.export_rewrites import make_traceable

    arrays = make_inputs(SAFETY_CHECKER, CONFIG, {"batch": IMAGES, "height": 6, "width": 5})
    looked, images = (torch.from_numpy(arrays[name]) for name in ("clip_input", "images"))
    with torch.inference_mode():
        expected, flagged = checker.forward_onnx(looked, images.clone())
        module = SAFETY_CHECKER.wrap(checker).eval()
        make_traceable(module)
        shown, bad = module(looked, images)
    assert {place for place, each in enumerate(bad.tolist()) if each} == checker.expected
    assert torch.equal(bad, flagged)
    assert compare(shown.numpy(), expected.numpy()).psnr_db >= 100
    for place in range(IMAGES):
        assert (shown[place].abs().max() == 0) == (place in checker.expected)


@pytest.mark.torch
def test_what_it_sees_is_clip_s_pooled_state(checker: Any) -> None:
    import torch

    from conversions.graphs.export_rewrites import make_traceable

    looked = torch.randn(2, 3, VISION["image_size"], VISION["image_size"])
    with torch.inference_mode():
        expected = checker.vision_model(looked).pooler_output
        module = SAFETY_CHECKER.wrap(checker).eval()
        make_traceable(module)
        assert compare(module._look(looked).numpy(), expected.numpy()).psnr_db >= 100
    assert type(checker) is SAFETY_CHECKER.component_class()


def test_inputs_and_outputs_are_those_of_the_vision_tower() -> None:
    images = "images float batch height width 3"
    outputs = ["out_images float batch height width 3", "has_nsfw_concepts bool batch"]
    assert described({}) == ["clip_input float batch 3 224 224", images, *outputs]
    assert described(CONFIG) == ["clip_input float batch 3 32 32", images, *outputs]
    older = {"vision_config": {"image_size": 64}, "vision_config_dict": {"image_size": 48, "num_channels": 1}}
    assert described(older)[0] == "clip_input float batch 1 48 48"


def test_only_what_shapes_the_vision_tower_makes_another_graph() -> None:
    usual = SAFETY_CHECKER.graph_config({"text_config": {"hidden_size": 7}, "logit_scale_init_value": 1})
    assert usual == SAFETY_CHECKER.graph_config({"projection_dim": 512, "vision_config": {}}) == {}
    assert SAFETY_CHECKER.graph_config({"projection_dim": 768, "vision_config": {"patch_size": 14}}) == {
        "patch_size": 14,
        "projection_dim": 768,
    }


def test_examples_look_like_prepared_pixels_and_images() -> None:
    arrays = make_inputs(SAFETY_CHECKER, CONFIG, SAFETY_CHECKER.sizes)
    looked, images = arrays["clip_input"], arrays["images"]
    assert {each.dtype for each in (looked, images)} == {np.dtype(np.float32)}
    assert looked.min() < -1
    assert looked.max() > 1
    assert 0 <= images.min() < 0.1
    assert 0.9 < images.max() <= 1
    assert images.shape == (2, 64, 48, 3)

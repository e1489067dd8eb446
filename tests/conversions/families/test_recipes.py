"""What each family says of its images and of its submodels, for the architectures whose graphs ship."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conversions.family import Family, PipelineConfigs, all_families, family_named
from conversions.recipe import ImageSize, NoiseLevels, Recipe

SIZE = ImageSize(width=512, height=1024, images=3)
EVERY = {"text-to-image", "image-to-image", "inpainting"}
KL = {"block_out_channels": [128, 256, 512, 512], "scaling_factor": 0.18215}
VAES: dict[str, dict[str, Any]] = {
    "flux": {**KL, "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    "stable-diffusion-3": {**KL, "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609},
    "stable-diffusion-xl": {**KL, "scaling_factor": 0.13025},
    "z-image": {**KL, "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159},
}

# Usual size in pixels, steps, guidance; what is a multiple of what; tokens of a prompt; tasks.
USUAL: dict[str, tuple[int, int, float, int, int, set[str]]] = {
    "flux": (1024, 4, 0.0, 16, 77, EVERY - {"inpainting"}),
    "flux2-klein": (1024, 50, 4.0, 16, 512, {"text-to-image"}),
    "pixart": (1024, 20, 4.5, 16, 300, EVERY),
    "sana": (1024, 20, 4.5, 32, 300, {"text-to-image"}),
    "sana-sprint": (1024, 2, 4.5, 32, 300, {"text-to-image"}),
    "stable-diffusion": (512, 30, 7.5, 8, 77, EVERY),
    "stable-diffusion-2": (512, 30, 7.5, 8, 77, EVERY),
    "stable-diffusion-3": (1024, 28, 7.0, 16, 77, EVERY),
    "stable-diffusion-xl": (1024, 30, 5.0, 8, 77, EVERY),
    "stable-diffusion-xl-refiner": (1024, 30, 5.0, 8, 77, EVERY - {"text-to-image"}),
    "z-image": (1024, 50, 5.0, 16, 512, EVERY - {"inpainting"}),
}
STRENGTH: dict[str, dict[str, float]] = {
    "flux": {"image-to-image": 0.6},
    "pixart": {"image-to-image": 0.6, "inpainting": 0.6},
    "stable-diffusion": {"image-to-image": 0.8, "inpainting": 1.0},
    "stable-diffusion-2": {"image-to-image": 0.8, "inpainting": 1.0},
    "stable-diffusion-3": {"image-to-image": 0.6, "inpainting": 0.6},
    "stable-diffusion-xl": {"image-to-image": 0.3, "inpainting": 0.9999},
    "stable-diffusion-xl-refiner": {"image-to-image": 0.3, "inpainting": 0.9999},
    "z-image": {"image-to-image": 0.6},
}
# Channels of latents, pixels of each, scaling and shift.
LATENTS: dict[str, tuple[int, int, float, float]] = {
    "flux": (16, 8, 0.3611, 0.1159),
    "flux2-klein": (128, 16, 1.0, 0.0),
    "pixart": (4, 8, 0.18215, 0.0),
    "sana": (32, 32, 1.0, 0.0),
    "sana-sprint": (32, 32, 1.0, 0.0),
    "stable-diffusion": (4, 8, 0.18215, 0.0),
    "stable-diffusion-2": (4, 8, 0.18215, 0.0),
    "stable-diffusion-3": (16, 8, 1.5305, 0.0609),
    "stable-diffusion-xl": (4, 8, 0.13025, 0.0),
    "stable-diffusion-xl-refiner": (4, 8, 0.18215, 0.0),
    "z-image": (16, 8, 0.3611, 0.1159),
}
# Sizes of the denoiser's and the text encoder's inputs for three images of 512 x 1024.
SIZES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "flux": ({"batch": 3, "tokens": 2048, "sequence": 256}, {"batch": 1, "sequence": 77, "tokens": 256}),
    "flux2-klein": ({"batch": 3, "tokens": 2048, "sequence": 512}, {"batch": 1, "sequence": 512}),
    "pixart": (
        {"batch": 6, "height": 128, "width": 64, "sequence": 300, "tokens": 2048},
        {"batch": 1, "tokens": 300},
    ),
    "sana": (
        {"batch": 6, "height": 32, "width": 16, "sequence": 300, "tokens": 512},
        {"batch": 1, "sequence": 506},
    ),
    "sana-sprint": (
        {"batch": 3, "height": 32, "width": 16, "sequence": 300, "tokens": 512},
        {"batch": 1, "sequence": 506},
    ),
    "stable-diffusion-3": (
        {"batch": 6, "height": 128, "width": 64, "sequence": 333},
        {"batch": 3, "sequence": 77, "tokens": 256},
    ),
    "z-image": ({"batch": 3, "tokens": 2048, "sequence": 512}, {"batch": 1, "sequence": 512}),
    **dict.fromkeys(
        (name for name in USUAL if name.startswith("stable-diffusion") and not name.endswith("-3")),
        ({"batch": 6, "height": 128, "width": 64, "sequence": 77}, {"batch": 3, "sequence": 77}),
    ),
}
OWN_SCHEDULER = {"sana-sprint": "SCMScheduler"}
LARGEST_SIDE = {"stable-diffusion-3": 3072}
CLIP_SKIP = {
    "stable-diffusion": 11,
    "stable-diffusion-2": 22,
    "stable-diffusion-3": 10,
    "stable-diffusion-xl": 10,
}
UNWEIGHED = {"flux2-klein", "pixart", "sana", "sana-sprint", "z-image"}
UNBLENDED = {"flux", "flux2-klein", "z-image"}
# Which guidance scales of 0, 1 and 1.5 ask for the negative prompt.
GUIDED = {
    "flux": (False, False, False),
    "sana-sprint": (False, False, False),
    "z-image": (False, True, True),  # as its pipeline has it: from above 0
}
LEVELS = {
    "flux": NoiseLevels(image_tokens=2048, sigmas=(1.0, 0.5)),
    "sana": NoiseLevels(image_tokens=512),
    "sana-sprint": NoiseLevels(image_tokens=512),
    "stable-diffusion-3": NoiseLevels(image_tokens=2048),
    "z-image": NoiseLevels(image_tokens=2048, sigmas=(1.0, 0.5)),
}


def configs_of(family: Family, **scheduler: Any) -> PipelineConfigs:
    """The first shipped configuration of each component, and an autoencoder as it is published."""
    components: dict[str, Any] = {}
    for part in family.parts:
        for each in family.shipped:
            if each.kind in part.kinds:
                components.setdefault(part.component, each.config)
    if family.name in VAES:
        components["vae"] = VAES[family.name]
    return PipelineConfigs(index={}, components=components, scheduler=scheduler)


def recipe_of(name: str, **scheduler: Any) -> Recipe:
    family = family_named(name)
    return family.recipe(configs_of(family, **scheduler))


def test_the_table_has_every_family() -> None:
    assert set(USUAL) == set(LATENTS) == set(SIZES) == {family.name for family in all_families()}


@pytest.mark.parametrize("name", USUAL)
def test_what_images_are_unless_a_request_says(name: str) -> None:
    recipe = recipe_of(name)
    side, steps, guidance, multiple, tokens, tasks = USUAL[name]
    usual = recipe.defaults
    assert (usual.width, usual.height, usual.steps, usual.guidance_scale) == (side, side, steps, guidance)
    assert recipe.native == ImageSize(width=side, height=side)
    assert dict(usual.strength) == STRENGTH.get(name, {})
    assert (recipe.size_multiple, recipe.prompt_length, set(recipe.tasks)) == (multiple, tokens, tasks)
    assert recipe.own_scheduler == OWN_SCHEDULER.get(name, "")
    assert recipe.largest_side == LARGEST_SIDE.get(name)
    assert recipe.most_clip_skip == CLIP_SKIP.get(name, 0)
    assert recipe.weighs_words is (name not in UNWEIGHED)
    assert recipe.blends_masks is (name not in UNBLENDED)
    assert recipe.reads_guidance is (name != "flux")
    assert recipe.distilled_steps is False
    has_unet = name.startswith("stable-diffusion") and not name.endswith("-3")
    assert recipe.prediction == ("out_sample" if has_unet else "out_hidden_states")


@pytest.mark.parametrize("name", USUAL)
def test_latents_and_the_sizes_of_inputs(name: str) -> None:
    recipe = recipe_of(name)
    space = recipe.latents
    assert (space.channels, space.downscale, space.scaling, space.shift) == LATENTS[name]
    denoiser, text = SIZES[name]
    assert dict(recipe.sizes("denoiser", SIZE)) == denoiser
    assert dict(recipe.sizes("text", SIZE)) == text
    rows, columns = 1024 // space.downscale, 512 // space.downscale
    assert dict(recipe.sizes("decoder", SIZE)) == {"batch": 3, "height": rows, "width": columns}
    if name != "flux2-klein":  # which has no encoder
        assert dict(recipe.sizes("encoder", SIZE)) == {"batch": 3, "height": 1024, "width": 512}


@pytest.mark.parametrize("name", USUAL)
def test_guidance_and_levels_of_noise(name: str) -> None:
    recipe: Any = recipe_of(name)
    asked = tuple(recipe.guided(scale) for scale in (0.0, 1.0, 1.5))
    assert asked == GUIDED.get(name, (False, False, True))
    levels = recipe.noise_levels(2, SIZE)
    if name == "flux2-klein":
        assert (levels.image_tokens, levels.sigmas) == (2048, (1.0, 0.5))
        assert levels.mu == pytest.approx(2.130929853)
    else:
        assert levels == LEVELS.get(name)


@pytest.mark.parametrize("name", ["flux", "flux2-klein", "z-image"])
def test_tokens_of_patches_become_the_same_latents_again(name: str) -> None:
    recipe: Any = recipe_of(name)
    channels, height, width = recipe.latents.shape(SIZE)
    latents = np.random.default_rng(0).normal(0, 1, (3, channels, height, width)).astype(np.float32)
    if name == "z-image":
        latents = latents[:1]
    tokens = recipe.pack(latents)
    rows, columns = recipe.grid(SIZE)
    assert tokens.shape[1] == rows * columns
    assert tokens.shape[2] == channels * recipe.patch**2
    size = ImageSize(width=512, height=1024, images=len(latents))
    # The first token is the first patch.
    patch = latents[0, :, : recipe.patch, : recipe.patch]
    assert sorted(tokens[0, 0].tolist()) == sorted(patch.ravel().tolist())
    velocity = recipe.unpack(tokens, size)
    assert velocity.shape == latents.shape
    # Z-Image's denoiser points away from the noise.
    np.testing.assert_array_equal(velocity, -latents if name == "z-image" else latents)


@pytest.mark.parametrize("name", USUAL)
def test_what_is_published_can_make_images(name: str) -> None:
    recipe = recipe_of(name)
    if name == "stable-diffusion-3":
        assert recipe.unsupported == (
            "The CLIP encoders' pooled states are 1536 wide, but the transformer reads 2048."
        )
    else:
        assert recipe.unsupported == ""
    corrected = {"steps_offset": 1, "clip_sample": False} if name in SAME or name in SAME.values() else {}
    corrected = {} if "xl" in name else corrected
    assert dict(recipe.scheduler_config) == corrected


SCHEDULERS: list[tuple[dict[str, Any], bool]] = [
    ({"_class_name": "LCMScheduler"}, True),
    ({"_class_name": "TCDScheduler"}, True),
    ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}, True),
    ({"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}, True),
    ({"_class_name": "EulerDiscreteScheduler"}, False),
    ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}, False),
    ({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, False),
    (
        {
            "_class_name": "EulerDiscreteScheduler",
            "timestep_spacing": "trailing",
            "prediction_type": "v_prediction",
        },
        False,
    ),
    (
        {
            "_class_name": "EulerDiscreteScheduler",
            "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": True,
        },
        False,
    ),
]


@pytest.mark.parametrize(("scheduler", "distilled"), SCHEDULERS)
def test_a_scheduler_tells_models_of_few_steps(scheduler: dict[str, Any], distilled: bool) -> None:
    usual = recipe_of("stable-diffusion-xl", **scheduler).defaults
    assert (usual.steps, usual.guidance_scale) == ((4, 1.0) if distilled else (30, 5.0))


def test_parts_are_what_a_package_has() -> None:
    found = {
        family.name: [
            f"{part.name} {part.component} {part.role}" + ("?" if part.optional else "")
            for part in family.parts
        ]
        for family in all_families()
    }
    decoder, encoder = "vae_decoder vae decoder", "vae_encoder vae encoder"
    text, text_2 = "text_encoder text_encoder text", "text_encoder_2 text_encoder_2 text"
    transformer, unet = "transformer transformer denoiser", "unet unet denoiser"
    checker = "safety_checker safety_checker safety?"
    assert found == {
        "flux": [text, text_2, transformer, encoder, decoder],
        "flux2-klein": [text, transformer, decoder],
        "pixart": [text, transformer, encoder, decoder],
        "sana": [text, transformer, decoder],
        "sana-sprint": [text, transformer, decoder],
        "stable-diffusion": [text, unet, encoder, decoder, checker],
        "stable-diffusion-2": [text, unet, encoder, decoder, checker],
        "stable-diffusion-3": [
            *(text, text_2, "text_encoder_3 text_encoder_3 text?", transformer, encoder, decoder)
        ],
        "stable-diffusion-xl": [text, text_2, unet, encoder, decoder],
        "stable-diffusion-xl-refiner": [text_2, unet, encoder, decoder],
        "z-image": [text, transformer, encoder, decoder],
    }


def test_small_files_are_those_of_tokenizers_and_the_scheduler() -> None:
    several = {"flux": 2, "stable-diffusion-3": 3, "stable-diffusion-xl": 2}
    for family in all_families():
        names = ("tokenizer", "tokenizer_2", "tokenizer_3")[: several.get(family.name, 1)]
        names = ("tokenizer_2",) if family.name == "stable-diffusion-xl-refiner" else names
        assert family.tokenizers == names
        features = ("feature_extractor",) if family.name in ("stable-diffusion", "stable-diffusion-2") else ()
        assert family.metadata == ("scheduler", *names, *features)
        called = {part.called for part in family.parts if part.called}
        assert called == ({"t5"} if family.name in ("flux", "stable-diffusion-3") else set())
        adapted = [each.component for each in family.adapted]
        has_unet = any(part.name == "unet" for part in family.parts)
        encoders = [part.component for part in family.parts if part.role == "text"]
        assert adapted == ([*encoders, "unet"] if has_unet else [])


PIPELINES = {
    "flux": ["FluxPipeline", "FluxImg2ImgPipeline", "ORTFluxPipeline"],
    "flux2-klein": ["Flux2KleinPipeline"],
    "pixart": ["PixArtSigmaPipeline", "PixArtAlphaPipeline"],
    "sana": ["SanaPipeline"],
    "sana-sprint": ["SanaSprintPipeline", "SanaSprintImg2ImgPipeline"],
    "stable-diffusion": [
        *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
        *("LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"),
        *("OnnxStableDiffusionPipeline", "ORTStableDiffusionPipeline"),
    ],
    "stable-diffusion-3": [
        *("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
        "ORTStableDiffusion3Pipeline",
    ],
    "stable-diffusion-xl": [
        *("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
        *("StableDiffusionXLInpaintPipeline", "ORTStableDiffusionXLPipeline"),
    ],
    "z-image": ["ZImagePipeline", "ZImageImg2ImgPipeline"],
}
SAME = {"stable-diffusion-2": "stable-diffusion", "stable-diffusion-xl-refiner": "stable-diffusion-xl"}
TITLES = {
    "flux": "FLUX.1",
    "flux2-klein": "FLUX.2 klein",
    "pixart": "PixArt",
    "sana": "Sana",
    "sana-sprint": "Sana-Sprint",
    "stable-diffusion": "Stable Diffusion 1.x",
    "stable-diffusion-2": "Stable Diffusion 2.x",
    "stable-diffusion-3": "Stable Diffusion 3",
    "stable-diffusion-xl": "Stable Diffusion XL",
    "stable-diffusion-xl-refiner": "Stable Diffusion XL refiner",
    "z-image": "Z-Image",
}


@pytest.mark.parametrize("name", TITLES)
def test_classes_of_pipelines_belong_to_families(name: str) -> None:
    family = family_named(name)
    assert family.title == TITLES[name]
    assert list(family.pipelines) == PIPELINES[SAME.get(name, name)]
    # Of two families of one class the second one is told by its configurations.
    assert (family.matches is not None) == (name in SAME)


def test_families_of_one_class_are_told_apart_by_their_configurations() -> None:
    for name, usual in SAME.items():
        own, other = family_named(name), family_named(usual)
        assert own.matches is not None
        index = {"requires_aesthetics_score": True} if "refiner" in name else {}
        assert own.matches(replace(configs_of(own), index=index))
        assert not own.matches(configs_of(other))
        assert not own.matches(PipelineConfigs(index={}, components={}, scheduler={}))

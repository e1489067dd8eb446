"""Prompts become exactly the inputs that a family's graphs take: names, types and shapes, for every family.

Submodels are stood in for by their declared inputs and outputs alone: what they compute does not matter here.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conversions import graphs
from conversions.family import Family, all_families, family_named
from conversions.graph_kind import GraphKind, TensorSpec
from conversions.recipe import EncodedPrompt, GuidedPrompts, ImageSize, InitialImage, PaddedTokens
from tests.conversions.families.test_recipes import KL, USUAL, configs_of

SIZE = ImageSize(width=256, height=128, images=2)
TYPES = {"float": np.float32, "float32": np.float32, "int32": np.int32, "bool": np.bool_}


def bound(specs: tuple[TensorSpec, ...], inputs: Any) -> dict[str, int]:
    """Check inputs against what is declared; returns the size of every free dimension."""
    assert set(inputs) == {spec.name for spec in specs}
    sizes: dict[str, int] = {}
    for spec in specs:
        value = inputs[spec.name]
        assert value.dtype == TYPES[spec.dtype], spec.name
        assert len(value.shape) == len(spec.shape), spec.name
        for size, declared in zip(value.shape, spec.shape, strict=True):
            wanted = sizes.setdefault(declared, size) if isinstance(declared, str) else declared
            assert size == wanted, f"{spec.name} has {value.shape}, {spec.shape} is declared"
    return sizes


G = {"hidden_size": 1280, "projection_dim": 1280, "num_hidden_layers": 32}
# Components whose graphs ship with another family.
ELSEWHERE: dict[str, dict[str, Any]] = {
    "flux": {"text_encoder": {"hidden_size": 768}, "text_encoder_2": {"d_model": 4096}},
    "stable-diffusion-3": {
        "text_encoder": {"hidden_size": 768, "projection_dim": 768},
        "text_encoder_2": G,
        "text_encoder_3": {"d_model": 4096},
    },
    "stable-diffusion-xl-refiner": {"text_encoder_2": G},
}


class Submodels:
    """Gives outputs as they are declared, other ones for other inputs."""

    def __init__(self, family: Family) -> None:
        known = configs_of(family)
        vae = {} if "vae" in known.components else {"vae": KL}
        components = {**known.components, **vae, **ELSEWHERE.get(family.name, {})}
        self.configs = family.typed(replace(known, components=components), "here")
        self.kinds: dict[str, GraphKind] = {}
        for part in family.parts:
            shipped = [each.kind for each in family.shipped if each.kind in part.kinds]
            self.kinds[part.name] = (*shipped, *part.kinds)[0]
        self.components = {part.name: part.component for part in family.parts}

    def config_of(self, name: str) -> Any:
        return self.configs.components.get(self.components[name], {})

    def __call__(self, name: str, inputs: Any) -> Any:
        kind, config = self.kinds[name], self.config_of(name)
        sizes = bound(kind.inputs(config), inputs)
        seed = zlib.crc32(b"".join(value.tobytes() for value in inputs.values()))
        random = np.random.default_rng(seed)
        outputs = {}
        for spec in kind.outputs(config):
            shape = [size if isinstance(size, int) else eval(size, {}, dict(sizes)) for size in spec.shape]  # noqa: S307
            outputs[spec.name] = random.normal(0, 1, shape).astype(np.float32)
        return outputs


class Prompts:
    """A token a letter, in chunks of 77 or as long as is asked for."""

    def encode(self, prompt: str, tokenizer: str, *, at_least: int = 1, length: int = 0) -> EncodedPrompt:
        assert tokenizer.startswith("tokenizer")
        shape = (max(at_least, 1), length or 77)
        tokens = np.full(shape, 1, np.int32)
        tokens[0, : len(prompt)] = [ord(letter) % 100 for letter in prompt]
        return EncodedPrompt(tokens=tokens, weights=np.ones(shape, np.float32))

    def tokenize(
        self, text: str, tokenizer: str, *, length: int, multiple: int = 0, before: str = "", after: str = ""
    ) -> PaddedTokens:
        assert tokenizer.startswith("tokenizer")
        count = len(text) + len(before) // 4 + len(after) // 4
        whole = length if not multiple else -(-count // multiple) * multiple
        ids, mask = np.full((1, whole), 2, np.int32), np.zeros((1, whole), np.int32)
        ids[0, : len(text)] = [ord(letter) % 100 for letter in text]
        mask[0, :count] = 1
        return PaddedTokens(ids=ids, mask=mask)

    def embed(self, hidden: Any, encoded: EncodedPrompt) -> Any:
        assert hidden.shape[:2] == encoded.tokens.shape
        return hidden.reshape(1, -1, hidden.shape[-1])


def request(guidance_scale: float) -> GuidedPrompts:
    return GuidedPrompts(
        prompt="a red horse", negative_prompt="cows", guidance_scale=guidance_scale, clip_skip=0, size=SIZE
    )


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("name", USUAL)
def test_the_denoiser_gets_what_its_graph_takes(name: str, guidance_scale: float) -> None:
    family = family_named(name)
    run = Submodels(family)
    recipe: Any = family.recipe(run.configs)
    denoiser = next(part.name for part in family.parts if part.role == "denoiser")
    kind, config = run.kinds[denoiser], run.config_of(denoiser)

    conditioning = recipe.encode(run, Prompts(), request(guidance_scale))

    guided = recipe.guided(guidance_scale)
    assert conditioning.size == SIZE
    assert conditioning.branches * len(conditioning.runs) == (2 if guided else 1)
    latents = np.random.default_rng(0).normal(0, 1, (SIZE.images, *recipe.latents.shape(SIZE)))
    found = recipe.denoiser_inputs(latents.astype(np.float32), 500.0, conditioning, None)
    assert len(found) == len(conditioning.runs)
    known = recipe.sizes("denoiser", SIZE)
    outputs = []
    for inputs in found:
        sizes = bound(kind.inputs(config), inputs)
        for dimension, size in sizes.items():
            if dimension == "batch":
                assert size == SIZE.images * conditioning.branches
            elif dimension == "sequence":  # as long as the prompt, or as what is left of it
                assert 0 < size <= known[dimension] or name == "z-image"
            else:
                assert size == known[dimension], dimension
        states = inputs["encoder_hidden_states"]
        assert np.array_equal(states[0], states[SIZE.images - 1])
        if conditioning.branches == 2:
            assert not np.array_equal(states[0], states[-1])
        outputs.append(run(denoiser, inputs)[recipe.prediction])
    if len(found) == 2:
        first, second = (inputs["encoder_hidden_states"] for inputs in found)
        assert first.shape != second.shape or not np.array_equal(first, second)
    guided_output = recipe.guide(tuple(outputs), conditioning, guidance_scale)
    assert guided_output.shape == latents.shape
    assert guided_output.dtype == np.float32


@pytest.mark.parametrize("name", [name for name, facts in USUAL.items() if "image-to-image" in facts[-1]])
def test_pixels_become_latents_and_latents_pixels(name: str) -> None:
    family = family_named(name)
    run = Submodels(family)
    recipe: Any = family.recipe(run.configs)
    space = recipe.latents.shape(SIZE)
    pixels = np.zeros((SIZE.images, 3, SIZE.height, SIZE.width), np.float32)
    noise = np.ones((SIZE.images, *space), np.float32)
    latents = recipe.encode_image(run, pixels, noise)
    assert latents.shape == (SIZE.images, *space)
    assert recipe.decode(run, latents).shape == pixels.shape
    assert latents.dtype == np.float32


def test_every_published_configuration_has_its_graph_beside_the_program() -> None:
    for family in all_families():
        for shipped in family.shipped:
            assert graphs.locate(shipped.kind, shipped.config, None) == "shipped", shipped.label
            assert any(shipped.kind in part.kinds for part in family.parts)


def test_the_turbo_model_takes_few_steps() -> None:
    for shift, usual in ((3.0, (8, 0.0)), (6.0, (50, 5.0))):
        found = family_named("z-image").recipe(configs_of(family_named("z-image"), shift=shift)).defaults
        assert (found.steps, found.guidance_scale) == usual


# Files of one family: where each component's names begin, by which tensor it is told, and what cannot differ.
PREFIXES = {
    "unet": ("model.diffusion_model.", ""),
    "transformer": ("model.diffusion_model.", ""),
    "vae": ("first_stage_model.", "vae.", ""),
}
MARKERS = {
    "flux": "vector_in.in_layer.weight",
    "flux2-klein": "double_stream_modulation_img.lin.weight",
    "sana": "blocks.0.cross_attn.q_linear.weight",
    "sana-sprint": "blocks.0.cross_attn.q_linear.weight",
    "stable-diffusion-3": "joint_blocks.0.x_block.attn.qkv.weight",
    "z-image": "layers.0.adaLN_modulation.0.weight",
    **dict.fromkeys(
        ("stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl", "stable-diffusion-xl-refiner"),
        "input_blocks.0.0.weight",
    ),
}
OF_UNETS = (
    *("in_channels", "cross_attention_dim", "use_linear_projection"),
    *("projection_class_embeddings_input_dim", "time_cond_proj_dim"),
)
FIXED = {
    "flux": ("in_channels", "guidance_embeds", "joint_attention_dim", "pooled_projection_dim"),
    "flux2-klein": ("in_channels", "joint_attention_dim", "guidance_embeds"),
    "sana": ("in_channels", "caption_channels", "cross_attention_dim", "guidance_embeds"),
    "sana-sprint": ("in_channels", "caption_channels", "cross_attention_dim", "guidance_embeds"),
    "stable-diffusion-3": ("in_channels", "joint_attention_dim", "pooled_projection_dim"),
    "z-image": ("cap_feat_dim",),
}
ENCODERS = {
    "flux": {
        "text_encoder": ("text_encoders.clip_l.transformer.",),
        "text_encoder_2": ("text_encoders.t5xxl.transformer.",),
    },
    "stable-diffusion": {"text_encoder": ("cond_stage_model.transformer.",)},
    "stable-diffusion-2": {"text_encoder": ("cond_stage_model.model.",)},
    "stable-diffusion-3": {
        "text_encoder": ("text_encoders.clip_l.transformer.",),
        "text_encoder_2": ("text_encoders.clip_g.transformer.",),
        "text_encoder_3": ("text_encoders.t5xxl.transformer.",),
    },
    "stable-diffusion-xl": {
        "text_encoder": ("conditioner.embedders.0.transformer.",),
        "text_encoder_2": ("conditioner.embedders.1.model.",),
    },
    "stable-diffusion-xl-refiner": {"text_encoder_2": ("conditioner.embedders.0.model.",)},
}


@pytest.mark.parametrize("name", USUAL)
def test_where_a_single_file_has_its_components(name: str) -> None:
    layout = family_named(name).single_file
    if name == "pixart":
        assert layout is None
        return
    assert layout is not None
    prefixes = {each.name: each.prefixes for each in layout.components}
    wanted = {**ENCODERS.get(name, {}), layout.denoiser: PREFIXES[layout.denoiser], "vae": PREFIXES["vae"]}
    if name.startswith("sana"):  # whose file format never called it the first stage
        wanted["vae"] = ("vae.", "")
    assert prefixes == wanted
    assert layout.component(layout.denoiser).marker == MARKERS[name]
    assert layout.component("vae").marker == "decoder.conv_in.weight"
    assert layout.fixed == FIXED.get(name, OF_UNETS)


def test_a_mask_is_seen_by_a_u_net_of_nine_channels() -> None:
    family = family_named("stable-diffusion")
    run = Submodels(family)
    unet = {**run.config_of("unet"), "in_channels": 9}
    recipe: Any = family.recipe(replace(run.configs, components={**run.configs.components, "unet": unet}))
    conditioning = recipe.encode(run, Prompts(), request(5.0))
    latents = np.zeros((2, 4, 16, 32), np.float32)
    initial = InitialImage(latents=None, mask=np.ones((1, 1, 16, 32), np.float32), masked_latents=latents)
    (inputs,) = recipe.denoiser_inputs(latents, 1.0, conditioning, initial)
    bound(run.kinds["unet"].inputs(unet), inputs)


def test_sana_sprint_reads_the_guidance_scale_at_a_tenth() -> None:
    family = family_named("sana-sprint")
    run = Submodels(family)
    for factor, wanted in ((None, 0.45), (0.2, 0.9), (0.0, 0.0)):
        transformer = {**run.config_of("transformer"), "guidance_embeds_scale": factor}
        changed = replace(run.configs, components={**run.configs.components, "transformer": transformer})
        recipe: Any = family.recipe(changed)
        conditioning = recipe.encode(run, Prompts(), request(4.5))
        assert conditioning.runs[0]["guidance"].ravel().tolist() == pytest.approx([wanted])


@pytest.mark.parametrize(
    ("version", "side"),
    [("0.8.1", 512), ("0.2", 512), ("0.9.0", 256), ("0.10.2", 256), ("1.0", 256), (None, 256)],
)
def test_u_nets_of_the_first_releases_say_half_of_their_side(version: str | None, side: int) -> None:
    family = family_named("stable-diffusion")
    known = configs_of(family)
    unet = {"sample_size": 32, "_diffusers_version": version}
    recipe: Any = family.recipe(replace(known, components={**known.components, "unet": unet}))
    assert recipe.native_size == (side, side)


def test_a_stable_diffusion_2_is_told_by_both_of_its_models() -> None:
    family = family_named("stable-diffusion-2")
    assert family.matches is not None
    for linear, activation in ((True, "quick_gelu"), (False, "gelu"), (False, "quick_gelu")):
        components = {
            "unet": {"use_linear_projection": linear},
            "text_encoder": {"hidden_act": activation},
        }
        assert not family.matches(replace(configs_of(family), components=components))


def test_the_refiner_is_told_how_good_an_image_is_to_be() -> None:
    recipe: Any = family_named("stable-diffusion-xl-refiner").recipe(
        configs_of(family_named("stable-diffusion-xl-refiner"))
    )
    assert recipe.time_ids(SIZE, negative=False).tolist() == [[128, 256, 0, 0, 6]]
    assert recipe.time_ids(SIZE, negative=True).tolist() == [[128, 256, 0, 0, 2.5]]

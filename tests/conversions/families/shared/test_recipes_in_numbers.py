"""The arithmetic that recipes share, on numbers that can be followed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conversions.errors import ConversionError
from conversions.families.shared.flow_recipe import chat
from conversions.families.shared.unet_recipe import UNetRecipe, guidance_embedding
from conversions.family import PipelineConfigs, family_named
from conversions.recipe import Conditioning, EncodedPrompt, GuidedPrompts, ImageSize, InitialImage

SIZE = ImageSize(width=16, height=8, images=2)


def unet_recipe(vae: dict[str, Any] | None = None, **unet: Any) -> UNetRecipe:
    return UNetRecipe(
        configs=PipelineConfigs(index={}, components={"unet": unet, "vae": vae or {}}, scheduler={})
    )


def floats(*numbers: float) -> Any:
    return np.array(numbers, np.float32)


def request(guidance_scale: float, size: ImageSize = SIZE) -> GuidedPrompts:
    return GuidedPrompts(
        prompt="a horse", negative_prompt="a cow", guidance_scale=guidance_scale, clip_skip=0, size=size
    )


def test_guidance_goes_from_what_is_unwanted_past_what_is_wanted() -> None:
    both = Conditioning(size=SIZE, runs=(), branches=2)
    away, towards = np.full((2, 4), 1.0, np.float32), np.full((2, 4), 3.0, np.float32)
    guided = unet_recipe().guide((np.concatenate([away, towards]),), both, 7.5)
    assert guided.tolist() == np.full((2, 4), 1 + 7.5 * 2).tolist()
    one = Conditioning(size=SIZE, runs=())
    assert unet_recipe().guide((towards,), one, 7.5) is towards


def test_flow_is_guided_by_the_outputs_of_two_runs() -> None:
    recipe: Any = family_named("z-image").recipe(PipelineConfigs(index={}, components={}, scheduler={}))
    assert recipe.combine(floats(3), floats(1), 0.5).tolist() == [3 + 0.5 * 2]
    other: Any = family_named("flux2-klein").recipe(PipelineConfigs(index={}, components={}, scheduler={}))
    assert other.combine(floats(3), floats(1), 4.0).tolist() == [1 + 4 * 2]
    assert other.time(500.0) == np.float32(0.5)
    assert recipe.time(250.0) == np.float32(0.75)


def test_a_sample_of_the_encoder_is_mean_and_noise() -> None:
    recipe = unet_recipe({"scaling_factor": 0.5})
    mean, variance = np.full((1, 4, 1, 1), 2.0), np.full((1, 4, 1, 1), np.log(9.0))
    parameters = np.concatenate([mean, variance], axis=1).astype(np.float32)

    def run(submodel: str, inputs: Any) -> Any:
        assert (submodel, list(inputs)) == ("vae_encoder", ["sample"])
        return {"latent_parameters": parameters}

    pixels, noise = np.zeros((1, 3, 8, 8), np.float32), np.ones((1, 4, 1, 1), np.float32)
    assert recipe.encode_image(run, pixels, noise).ravel().tolist() == pytest.approx([0.5 * (2 + 3)] * 4)
    # The deviation is kept from leaving float32's range.
    parameters[:, 4:] = 1e6
    largest = 0.5 * (2 + np.exp(np.float32(10)))
    assert recipe.encode_image(run, pixels, noise).ravel().tolist() == pytest.approx([largest] * 4)
    parameters[:, 4:] = -1e6
    smallest = 0.5 * (2 + np.exp(np.float32(-15)))
    assert recipe.encode_image(run, pixels, noise).ravel().tolist() == pytest.approx([smallest] * 4)


def test_a_tiny_autoencoder_gives_latents_and_needs_no_scale() -> None:
    recipe = unet_recipe({"encoder_block_out_channels": [64] * 4})
    latents = np.full((1, 4, 1, 1), 3.0, np.float32)
    assert recipe.latents.scaling == 1.0
    assert recipe.encode_image(lambda *_: {"latents": latents}, latents, latents).tolist() == latents.tolist()
    scaled = unet_recipe({"encoder_block_out_channels": [64] * 4, "scaling_factor": 0.5}).latents
    assert (scaled.scaling, scaled.downscale) == (0.5, 8)
    assert unet_recipe({"block_out_channels": [1, 2]}).latents.downscale == 2
    assert unet_recipe({"scaling_factor": 0.0}).latents.scaling == 0.0


def test_latents_are_decoded_on_the_decoder_s_scale() -> None:
    recipe = unet_recipe({"scaling_factor": 0.5, "shift_factor": 1.0})

    def run(submodel: str, inputs: Any) -> Any:
        assert submodel == "vae_decoder"
        return {"sample": inputs["latent_sample"] * 10}

    assert recipe.decode(run, floats(2.0)).tolist() == [(2 / 0.5 + 1) * 10]


def test_a_u_net_sees_both_prompts_and_the_mask_where_it_reads_one() -> None:
    latents = np.ones((2, 4, 1, 2), np.float32)
    states = np.zeros((4, 77, 8), np.float32)
    both = Conditioning(size=SIZE, runs=({"encoder_hidden_states": states},), branches=2)
    (inputs,) = unet_recipe().denoiser_inputs(latents, 981.0, both, None)
    assert inputs["sample"].shape == (4, 4, 1, 2)
    assert inputs["timestep"].tolist() == [981.0]
    assert inputs["timestep"].dtype == np.float32
    assert inputs["encoder_hidden_states"] is states
    mask = np.full((1, 1, 1, 2), 0.5, np.float32)
    initial = InitialImage(latents=None, mask=mask, masked_latents=np.full((2, 4, 1, 2), 7.0, np.float32))
    (inputs,) = unet_recipe(in_channels=9).denoiser_inputs(latents, 1.0, both, initial)
    assert inputs["sample"].shape == (4, 9, 1, 2)
    assert inputs["sample"][0, :, 0, 0].tolist() == [1.0] * 4 + [0.5] + [7.0] * 4


def test_what_a_u_net_reads_decides_what_it_can_do() -> None:
    plain, masked, strange = (unet_recipe(in_channels=channels) for channels in (4, 9, 8))
    assert plain.unsupported == masked.unsupported == ""
    assert strange.unsupported == (
        "The U-Net has 8 input channels; this pipeline makes images with 4, or with 9 for inpainting."
    )
    assert plain.tasks == {"text-to-image", "image-to-image", "inpainting"}
    assert masked.tasks == {"inpainting"}
    assert (plain.blends_masks, masked.blends_masks) == (True, False)
    reads = unet_recipe(time_cond_proj_dim=256)
    assert (reads.distilled_steps, reads.guided(7.5)) == (True, False)
    assert (plain.distilled_steps, plain.guided(7.5), plain.guided(1.0)) == (False, True, False)


@pytest.mark.parametrize(
    ("sample", "native"),
    [(64, (512, 512)), (None, (512, 512)), ([96, 128], (1024, 768)), ((64, 32), (256, 512))],
)
def test_the_native_size_is_the_u_net_s(sample: Any, native: tuple[int, int]) -> None:
    assert unet_recipe(sample_size=sample).native_size == native


@pytest.mark.parametrize("sample", [[64], [64, 64, 64], [64, "64"]])
def test_a_native_size_of_another_form_is_refused(sample: Any) -> None:
    with pytest.raises(ConversionError, match="sample_size") as caught:
        _ = unet_recipe(sample_size=sample).native_size
    assert caught.value.code == "config.invalid"


def test_prompts_are_encoded_to_the_same_length_and_once_for_each_image() -> None:
    asked: list[tuple[str, int]] = []

    class Prompts:
        def encode(self, text: str, tokenizer: str, *, at_least: int = 1, length: int = 0) -> EncodedPrompt:
            assert (tokenizer, length) == ("tokenizer", 0)
            asked.append((text, at_least))
            chunks = max(at_least, 2 if text == "a horse" else 1)
            return EncodedPrompt(
                tokens=np.full((chunks, 77), len(text), np.int32), weights=np.ones((chunks, 77), np.float32)
            )

        def embed(self, hidden: Any, encoded: EncodedPrompt) -> Any:
            assert len(hidden) == len(encoded.tokens)
            return hidden.reshape(1, -1, hidden.shape[-1])

    def run(submodel: str, inputs: Any) -> Any:
        assert submodel == "text_encoder"
        return {"last_hidden_state": np.repeat(inputs["input_ids"][..., None], 8, axis=2).astype(np.float32)}

    prompts: Any = Prompts()
    found = unet_recipe().encode(run, prompts, request(7.5))
    (inputs,) = found.runs
    states = inputs["encoder_hidden_states"]
    # The negative prompt first, two images each, two chunks each.
    assert states.shape == (4, 154, 8)
    assert states[:, 0, 0].tolist() == [5, 5, 7, 7]
    assert (found.branches, found.size) == (2, SIZE)
    assert asked == [("a cow", 1), ("a horse", 1), ("a cow", 2), ("a horse", 2)]
    alone = unet_recipe().encode(run, prompts, request(1.0))
    assert alone.branches == 1
    assert alone.runs[0]["encoder_hidden_states"][:, 0, 0].tolist() == [7, 7]
    reads = unet_recipe(time_cond_proj_dim=6).encode(run, prompts, request(7.5))
    assert reads.branches == 1
    expected = guidance_embedding(6.5, 6)
    np.testing.assert_array_equal(reads.runs[0]["timestep_cond"], np.repeat(expected, 2, axis=0))


def test_a_guidance_scale_becomes_sinusoids() -> None:
    angles = 6.5 * 1000 * np.exp(-np.log(10_000) * np.arange(4) / 3)
    found = guidance_embedding(6.5, 8)
    assert (found.shape, found.dtype) == ((1, 8), np.dtype(np.float32))
    np.testing.assert_allclose(found[0], [*np.sin(angles), *np.cos(angles)], atol=1e-3)
    odd = guidance_embedding(6.5, 9)
    assert odd.shape == (1, 9)
    assert odd[0, -1] == 0
    np.testing.assert_array_equal(odd[0, :8], found[0])


def test_a_conversation_with_qwen_is_one_message() -> None:
    begin, end = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    assert chat(thinking=True) == (begin, end)
    assert chat(thinking=False) == (begin, f"{end}<think>\n\n</think>\n\n")


def test_latents_of_a_transformer_are_one_batch_with_both_prompts() -> None:
    recipe: Any = family_named("pixart").recipe(PipelineConfigs(index={}, components={}, scheduler={}))
    latents = np.ones((2, 4, 2, 2), np.float32)
    both = Conditioning(size=SIZE, runs=({"states": floats(1)},), branches=2)
    (inputs,) = recipe.denoiser_inputs(latents, 7.0, both, None)
    assert inputs["hidden_states"].shape == (4, 4, 2, 2)
    assert inputs["timestep"].tolist() == [7.0]
    assert inputs["states"].tolist() == [1.0]
    assert recipe.texts(request(4.5)) == ("a cow", "a horse")
    assert recipe.texts(request(1.0)) == ("a horse",)

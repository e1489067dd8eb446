"""What is traced of every kind computes the numbers of the library's class, at sizes of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from conversions.graph_kind import GraphKind
from conversions.submodels.autoencoder_dc import DC_DECODER
from conversions.submodels.clip_text import CLIP_TEXT, CLIP_TEXT_LAYERS, CLIP_TEXT_PROJECTED
from conversions.submodels.flux2 import FLUX2
from conversions.submodels.flux2_vae import FLUX2_DECODER
from conversions.submodels.flux_transformer import FLUX_TRANSFORMER
from conversions.submodels.gemma2 import GEMMA2_TEXT
from conversions.submodels.pixart_transformer import PIXART_TRANSFORMER
from conversions.submodels.qwen3 import QWEN3_LAST_BUT_ONE, QWEN3_THREE_LAYERS
from conversions.submodels.sana_transformer import SANA_TRANSFORMER
from conversions.submodels.sd3_transformer import SD3_TRANSFORMER
from conversions.submodels.t5_encoder import T5_ENCODER, T5_ENCODER_MASKED
from conversions.submodels.tiny_vae import TINY_DECODER, TINY_ENCODER
from conversions.submodels.unet import UNET, UNET_REFINER
from conversions.submodels.vae import DECODER, ENCODER
from conversions.submodels.z_image import Z_IMAGE
from conversions.verification.metrics import compare
from conversions.verification.reference import make_inputs
from tests import checkpoints, flow_checkpoints, flux_checkpoints, pixart_checkpoints, sana_checkpoints
from tests import sd3_checkpoints as sd3
from tests.checkpoints import TEXT, XL_TEXT_2, XL_UNET

pytestmark = pytest.mark.torch

ODD = {"batch": 2, "height": 9, "width": 11, "sequence": 5}
PATCHED = {"batch": 2, "height": 6, "width": 10, "sequence": 7, "tokens": 3 * 5}
WORDS = {"batch": 3, "sequence": 9, "tokens": 9}


def first(result: Any) -> tuple[Any, ...]:
    """Return what a class of diffusers gives without its dataclass."""
    return (result[0],)


def unet(model: Any, sample: Any, timestep: Any, encoder_hidden_states: Any, **more: Any) -> tuple[Any, ...]:
    guidance = more.pop("timestep_cond", None)
    return first(
        model(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=guidance,
            added_cond_kwargs=more or None,
            return_dict=False,
        )
    )


def encoded(model: Any, sample: Any) -> tuple[Any, ...]:
    return (model.encode(sample).latent_dist.parameters,)


def decoded(model: Any, latent_sample: Any) -> tuple[Any, ...]:
    return first(model.decode(latent_sample, return_dict=False))


def tiny_latents(model: Any, sample: Any) -> tuple[Any, ...]:
    return first(model.encode(sample, return_dict=False))


def flux2_image(model: Any, latent_sample: Any) -> tuple[Any, ...]:
    """Undo normalisation and packing as the pipeline does."""
    from diffusers import Flux2KleinPipeline

    mean = model.bn.running_mean.view(1, -1, 1, 1)
    deviation = (model.bn.running_var.view(1, -1, 1, 1) + model.config.batch_norm_eps).sqrt()
    unpacked = Flux2KleinPipeline._unpatchify_latents(latent_sample * deviation + mean)
    return first(model.decode(unpacked, return_dict=False))


def clip(model: Any, input_ids: Any) -> tuple[Any, ...]:
    found = model(input_ids.long())
    return found.last_hidden_state, found.pooler_output


def clip_layers(model: Any, input_ids: Any) -> tuple[Any, ...]:
    found = model(input_ids.long(), output_hidden_states=True)
    return found.last_hidden_state, found.pooler_output, *found.hidden_states


def clip_projected(model: Any, input_ids: Any) -> tuple[Any, ...]:
    found = model(input_ids.long(), output_hidden_states=True)
    return found.text_embeds, found.last_hidden_state, *found.hidden_states


def last_states(model: Any, input_ids: Any, attention_mask: Any = None) -> tuple[Any, ...]:
    return (model(input_ids=input_ids.long(), attention_mask=attention_mask).last_hidden_state,)


def states_behind(*layers: int) -> Callable[..., tuple[Any, ...]]:
    def run(model: Any, input_ids: Any, attention_mask: Any) -> tuple[Any, ...]:
        found = model(input_ids.long(), attention_mask.long(), output_hidden_states=True)
        return tuple(found.hidden_states[layer] for layer in layers)

    return run


def noise(model: Any, hidden_states: Any, timestep: Any, **more: Any) -> tuple[Any, ...]:
    """Run a transformer of diffusers that finds out positions by itself."""
    more.pop("pos_embed", None)
    batch = len(hidden_states)
    if "guidance" in more:
        more["guidance"] = more["guidance"].expand(batch)
    return first(model(hidden_states, timestep=timestep.expand(batch), return_dict=False, **more))


def pixart_noise(model: Any, **inputs: Any) -> tuple[Any, ...]:
    batch = len(inputs["hidden_states"])
    conditions = {
        name: inputs.pop(name).expand(batch, -1) if name in inputs else None
        for name in ("resolution", "aspect_ratio")
    }
    return noise(model, **inputs, added_cond_kwargs=conditions)


def flux_noise(model: Any, **inputs: Any) -> tuple[Any, ...]:
    """Run FLUX.1 with the pipeline's positions of an image of 5 by 3 patches."""
    import torch
    from diffusers import FluxPipeline

    image, words = inputs["hidden_states"], inputs["encoder_hidden_states"]
    positions = {
        "img_ids": FluxPipeline._prepare_latent_image_ids(len(image), 5, 3, "cpu", torch.float32),
        "txt_ids": torch.zeros(words.shape[1], 3),
    }
    return noise(model, **{name: each for name, each in inputs.items() if "rotary" not in name}, **positions)


def flux2_noise(model: Any, **inputs: Any) -> tuple[Any, ...]:
    """Run Flux 2 with the pipeline's positions of an image of 3 by 5 patches."""
    import torch
    from diffusers import Flux2KleinPipeline

    positions = {
        "img_ids": Flux2KleinPipeline._prepare_latent_ids(torch.zeros(1, 1, 3, 5))[0],
        "txt_ids": Flux2KleinPipeline._prepare_text_ids(inputs["encoder_hidden_states"])[0],
    }
    more = {name: each for name, each in inputs.items() if "rotary" not in name}
    return noise(model, **more, **positions)


def unpacked(model: Any, **inputs: Any) -> tuple[Any, ...]:
    """Run Z-Image's class on images that are put together as the kind's own reference does."""
    assert Z_IMAGE.reference is not None
    return (Z_IMAGE.reference(model)(*inputs.values()),)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A configuration of a kind.

    Attributes:
        kind: What is traced.
        config: A tiny component's.
        library: Runs the component as its library does; called with it and the inputs.
        sizes: Of the free dimensions.
    """

    kind: GraphKind
    config: dict[str, Any]
    library: Callable[..., tuple[Any, ...]]
    sizes: dict[str, int] = field(default_factory=lambda: ODD)


TOKENS = {"vocab_size": 60, "eos_token_id": 59, "bos_token_id": 58}
QWEN = {**flow_checkpoints.QWEN3, "vocab_size": 70}
DEEP_QWEN = {**QWEN, "hidden_size": 16, "head_dim": 4, "num_hidden_layers": 28, "num_key_value_heads": 4}
SANA = sana_checkpoints.TRANSFORMER
CASES = {
    "U-Net": Case(kind=UNET, config=checkpoints.UNET, library=unet),
    "U-Net of LCM": Case(kind=UNET, config={**checkpoints.UNET, "time_cond_proj_dim": 12}, library=unet),
    "U-Net of XL": Case(kind=UNET, config=XL_UNET, library=unet),
    "U-Net of XL and LCM": Case(kind=UNET, config={**XL_UNET, "time_cond_proj_dim": 12}, library=unet),
    "distilled U-Net": Case(kind=UNET, config=checkpoints.XL_DISTILLED_UNET, library=unet),
    "refiner": Case(kind=UNET_REFINER, config=checkpoints.REFINER_UNET, library=unet),
    "VAE to latents": Case(
        kind=ENCODER, config=checkpoints.VAE, library=encoded, sizes={"batch": 2, "height": 16, "width": 40}
    ),
    "VAE to latents without quant_conv": Case(
        kind=ENCODER, config=sd3.VAE_16, library=encoded, sizes={"batch": 2, "height": 16, "width": 40}
    ),
    "VAE to images": Case(kind=DECODER, config=checkpoints.VAE, library=decoded, sizes=ODD),
    "tiny VAE to latents": Case(
        kind=TINY_ENCODER,
        config=checkpoints.TINY_VAE,
        library=tiny_latents,
        sizes={"batch": 2, "height": 16, "width": 40},
    ),
    "tiny VAE to images": Case(kind=TINY_DECODER, config=checkpoints.TINY_VAE, library=decoded, sizes=ODD),
    "VAE of Flux 2": Case(
        kind=FLUX2_DECODER, config=flow_checkpoints.FLUX2_VAE, library=flux2_image, sizes=ODD
    ),
    "deep compression": Case(kind=DC_DECODER, config=sana_checkpoints.DC_AE, library=decoded, sizes=ODD),
    "CLIP": Case(kind=CLIP_TEXT, config={**TEXT, **TOKENS}, library=clip, sizes=WORDS),
    "CLIP of old configurations": Case(
        kind=CLIP_TEXT, config={**TEXT, **TOKENS, "eos_token_id": 2}, library=clip, sizes=WORDS
    ),
    "CLIP with layers": Case(
        kind=CLIP_TEXT_LAYERS, config={**TEXT, **TOKENS}, library=clip_layers, sizes=WORDS
    ),
    "CLIP with a projection": Case(
        kind=CLIP_TEXT_PROJECTED, config={**XL_TEXT_2, **TOKENS}, library=clip_projected, sizes=WORDS
    ),
    "T5": Case(kind=T5_ENCODER, config={**sd3.T5, "vocab_size": 60}, library=last_states, sizes=WORDS),
    "T5 without gates": Case(
        kind=T5_ENCODER,
        config={**sd3.T5, "vocab_size": 60, "feed_forward_proj": "relu"},
        library=last_states,
        sizes={**WORDS, "tokens": 150},
    ),
    "T5 with a mask": Case(
        kind=T5_ENCODER_MASKED, config={**sd3.T5, "vocab_size": 60}, library=last_states, sizes=WORDS
    ),
    "Qwen 3 before the last layer": Case(
        kind=QWEN3_LAST_BUT_ONE, config=QWEN, library=states_behind(2), sizes=WORDS
    ),
    "Qwen 3 behind three layers": Case(
        kind=QWEN3_THREE_LAYERS, config=DEEP_QWEN, library=states_behind(9, 18, 27), sizes=WORDS
    ),
    "Gemma 2": Case(
        kind=GEMMA2_TEXT,
        config={**sana_checkpoints.GEMMA2, "vocab_size": 70},
        library=last_states,
        sizes=WORDS,
    ),
    "Gemma 2 without a cap": Case(
        kind=GEMMA2_TEXT,
        config={**sana_checkpoints.GEMMA2, "vocab_size": 70, "attn_logit_softcapping": None},
        library=last_states,
        sizes=WORDS,
    ),
    "Stable Diffusion 3": Case(
        kind=SD3_TRANSFORMER, config=sd3.SD3_TRANSFORMER, library=noise, sizes=PATCHED
    ),
    "Stable Diffusion 3.5": Case(
        kind=SD3_TRANSFORMER, config=sd3.SD35_TRANSFORMER, library=noise, sizes=PATCHED
    ),
    "FLUX.1 schnell": Case(
        kind=FLUX_TRANSFORMER, config=flux_checkpoints.TRANSFORMER, library=flux_noise, sizes=PATCHED
    ),
    "FLUX.1 dev": Case(
        kind=FLUX_TRANSFORMER,
        config={**flux_checkpoints.TRANSFORMER, "guidance_embeds": True},
        library=flux_noise,
        sizes=PATCHED,
    ),
    "Flux 2": Case(kind=FLUX2, config=flow_checkpoints.FLUX2, library=flux2_noise, sizes=PATCHED),
    "PixArt Sigma": Case(
        kind=PIXART_TRANSFORMER, config=pixart_checkpoints.TRANSFORMER, library=pixart_noise, sizes=PATCHED
    ),
    "PixArt alpha": Case(
        kind=PIXART_TRANSFORMER,
        config=pixart_checkpoints.ALPHA_TRANSFORMER,
        library=pixart_noise,
        sizes=PATCHED,
    ),
    "Sana": Case(kind=SANA_TRANSFORMER, config=SANA, library=noise, sizes=PATCHED),
    "Sana Sprint": Case(
        kind=SANA_TRANSFORMER,
        config={**SANA, "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"},
        library=noise,
        sizes=PATCHED,
    ),
    "Sana with positions": Case(
        kind=SANA_TRANSFORMER,
        config={**SANA, "interpolation_scale": 1.5},
        library=noise,
        sizes={**PATCHED, "tokens": 60},
    ),
    "Z-Image": Case(
        kind=Z_IMAGE,
        config=flow_checkpoints.Z_IMAGE,
        library=unpacked,
        sizes={"batch": 2, "tokens": 32, "sequence": 64},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    """Import the libraries, which takes seconds, before a test's time counts."""
    from conversions.graphs import export_rewrites

    assert export_rewrites
    for case in CASES.values():
        case.kind.component_class()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def made(case: Case) -> Any:
    """Make a component with weights none of which is without effect."""
    import torch

    torch.manual_seed(3)
    component = case.kind.create(case.config)
    sd3.random_weights(component)
    flow_checkpoints._spread(component)
    return component.eval()


def test_what_is_traced_computes_the_numbers_of_the_class(case: Case) -> None:
    import torch

    from conversions.graphs.export_rewrites import make_traceable

    kind = case.kind
    component = made(case)
    assert type(component) is kind.component_class()
    arrays = make_inputs(kind, case.config, case.sizes)
    inputs = {spec.name: torch.from_numpy(arrays[spec.name]) for spec in kind.inputs(case.config)}
    with torch.inference_mode():
        expected = case.library(copy.deepcopy(component), **inputs)
        compared = (kind.reference or kind.wrap)(copy.deepcopy(component)).eval()(*inputs.values())
        for name, weight in component.named_parameters():
            weight.mul_(kind.scale_of(name))
        module = kind.wrap(component).eval()
        make_traceable(module)
        found = module(*inputs.values())
    outputs = kind.outputs(case.config)
    for results in (found, compared):
        values = results if isinstance(results, tuple) else (results,)
        assert len(values) == len(expected) == len(outputs)
        for spec, value, wanted in zip(outputs, values, expected, strict=True):
            shape = tuple(eval(str(each), {}, dict(case.sizes)) for each in spec.shape)  # noqa: S307
            assert tuple(value.shape) == tuple(wanted.shape) == shape, spec.name
            assert compare(value.numpy(), wanted.numpy()).psnr_db >= 100, spec.name
            assert value.float().std() > 0, spec.name

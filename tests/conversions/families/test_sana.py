"""Sana and Sana-Sprint beyond the contract: prompts and positions as diffusers has them, and refusals."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions import graphs
from conversions.checkpoint.folder import open_folder
from conversions.checkpoint.single_file import open_file
from conversions.errors import ConversionError
from conversions.events import Event, Notice
from conversions.families import sana, sana_sprint
from conversions.families.sana import INSTRUCTION, cleaned
from conversions.family import PipelineConfigs, families_of
from conversions.graph_kind import Config
from conversions.options import Options
from conversions.plan import make_plan
from conversions.recipe import GuidedPrompts, ImageSize, PaddedTokens
from conversions.submodels.autoencoder_dc import DC_DECODER
from conversions.submodels.gemma2 import GEMMA2_TEXT
from conversions.submodels.gemma2 import unsupported as unsupported_text
from conversions.submodels.sana_transformer import SANA_TRANSFORMER, position_table
from conversions.verification.linear_attention import find_linear_attention
from sdsetup.errors import SetupError
from sdsetup.imaging import prompts
from sdsetup.imaging.checkpoint_scheduler import check_scheduler
from sdsetup.imaging.tokenizer import PromptTokenizer
from tests import transformer_files
from tests.checkpoints import make_variant
from tests.conversions.checkpoint.test_single_file import values
from tests.sana_checkpoints import DC_AE, FLOW_DPM, GEMMA2, SANA_VARIANTS, SCM, TRANSFORMER, SanaVariant

SPRINT = SANA_VARIANTS["sana-sprint"]
LONG = "A red horse, 100% wool; " * 60


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_variant(tmp_path_factory.mktemp("checkpoint") / "tiny", SANA_VARIANTS["sana"])


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> Any:
    from diffusers import SanaPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SanaPipeline.from_pretrained(checkpoint)


@pytest.mark.torch
def test_the_instruction_is_that_of_both_pipelines() -> None:
    from diffusers import SanaPipeline, SanaSprintPipeline

    for pipeline in (SanaPipeline, SanaSprintPipeline):
        parameters = inspect.signature(pipeline.__call__).parameters
        assert "\n".join(parameters["complex_human_instruction"].default) == INSTRUCTION
        assert parameters["max_sequence_length"].default == sana.SanaRecipe.prompt_length
        assert not parameters["clean_caption"].default


@pytest.mark.torch
@pytest.mark.parametrize("prompt", ["  A Red HORSE, 100% Wool \n", "", "ÅNGSTRÖM (2:1) &amp; http://x.y"])
def test_a_prompt_is_read_as_diffusers_reads_it(prompt: str) -> None:
    from diffusers import SanaPipeline

    process: Any = SanaPipeline._text_preprocessing
    assert [cleaned(prompt)] == process(SanaPipeline, prompt, clean_caption=False)


class _Words:
    """A checkpoint's tokenizer, for a recipe."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = PromptTokenizer(folder=folder)
        self.heard: list[Event] = []

    def tokenize(self, text: str, tokenizer: str, **given: Any) -> PaddedTokens:
        assert tokenizer == "tokenizer"
        return prompts.tokenize(text, self.tokenizer, listener=self.heard.append, **given)


@pytest.mark.torch
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    ("prompt", "negative"), [("A red horse", "Blurry, 月"), ("", ""), (LONG, LONG), ("x", LONG)]
)
def test_states_and_masks_are_those_of_diffusers(
    prompt: str, negative: str, side: str, checkpoint: Path, pipeline: Any
) -> None:
    """With texts of all lengths, and a tokenizer that would pad on either side."""
    import torch

    instruction = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    with torch.inference_mode():
        states, mask, away, away_mask = pipeline.encode_prompt(
            prompt, negative_prompt=negative, complex_human_instruction=instruction
        )

    def run(submodel: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        assert submodel == "text_encoder"
        given = {name: torch.from_numpy(tensor).long() for name, tensor in inputs.items()}
        with torch.inference_mode():
            return {"last_hidden_state": pipeline.text_encoder(**given).last_hidden_state.numpy()}

    words = _Words(checkpoint / "tokenizer")
    if side == "left":
        object.__setattr__(words.tokenizer._tokenizer, "pads_left", True)
    request = GuidedPrompts(
        prompt=prompt,
        negative_prompt=negative,
        guidance_scale=4.5,
        clip_skip=0,
        size=ImageSize(width=64, height=64, images=2),
    )
    given: Any = words
    found = open_folder(checkpoint).recipe.encode(run, given, request)
    (inputs,) = found.runs
    # Words of one's own are counted, not those of the instruction.
    own = [len(words.tokenizer.encode(cleaned(each))) for each in (negative, prompt) if each == LONG]
    assert [type(each) for each in words.heard] == [Notice] * len(own)
    for said, count in zip(words.heard, own, strict=True):
        assert isinstance(said, Notice)
        assert said.text.endswith(f" tokens of {count} are left out.")
    kept = np.concatenate([away_mask, away_mask, mask, mask])
    assert found.branches == 2
    assert np.array_equal(inputs["encoder_attention_mask"], kept)
    expected = np.concatenate([away, away, states, states])
    # What padding becomes depends on the token that it is made of, and nobody reads it.
    assert np.abs((inputs["encoder_hidden_states"] - expected) * kept[..., None]).max() < 1e-4


@pytest.mark.torch
@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (9, 17), (40, 24)])
def test_the_places_of_patches_are_those_of_diffusers(rows: int, columns: int) -> None:
    import torch
    from diffusers import SanaTransformer2DModel

    config = {**TRANSFORMER, "num_layers": 1, "interpolation_scale": 2.0}
    patches = SanaTransformer2DModel(**config).patch_embed
    with torch.no_grad():
        patches.proj.weight.zero_()
        patches.proj.bias.zero_()
        expected = patches(torch.zeros(1, 8, rows, columns))[0].numpy()
    assert np.abs(position_table(config, rows, columns) - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("kind", "config", "attentions"),
    [
        (SANA_TRANSFORMER, sana.SANA_1600M, 20),
        (SANA_TRANSFORMER, sana_sprint.SPRINT_600M, 28),
        (DC_DECODER, sana.DC_AE, 9),
    ],
)
def test_every_linear_attention_stays_float32(kind: Any, config: Config, attentions: int) -> None:
    model = graphs.find(kind, config, None)
    assert model is not None
    kept = [entry.operator for entry in find_linear_attention(model)]
    assert kept.count("Div") == attentions
    assert kept.count("MatMul") == kept.count("Relu") == 2 * attentions


def recipe_of(variant: SanaVariant, **components: Config) -> Any:
    given = {"transformer": variant.transformer, "vae": DC_AE, "text_encoder": GEMMA2, **components}
    configs = PipelineConfigs(index={}, components=given, scheduler=variant.scheduler)
    return (sana_sprint if variant is SPRINT else sana).recipe(configs)


def test_what_belongs_to_another_pipeline_or_cannot_be_expressed_is_named() -> None:
    plain = SANA_VARIANTS["sana"]
    assert recipe_of(plain).unsupported == recipe_of(SPRINT).unsupported == ""
    assert "Sana-Sprint" in recipe_of(plain, transformer=SPRINT.transformer).unsupported
    assert "of Sana." in recipe_of(SPRINT, transformer=TRANSFORMER).unsupported
    assert "qk_norm" in recipe_of(plain, transformer={**TRANSFORMER, "qk_norm": "layer_norm"}).unsupported
    nothing = {**TRANSFORMER, "cross_attention_dim": None}
    assert "no prompt" in recipe_of(plain, transformer=nothing).unsupported
    assert "16 channels" in recipe_of(plain, vae={**DC_AE, "latent_channels": 16}).unsupported
    both_ways = {**GEMMA2, "use_bidirectional_attention": True}
    assert "later words" in recipe_of(plain, text_encoder=both_ways).unsupported
    assert "states of 96 numbers" in recipe_of(plain, text_encoder={**GEMMA2, "hidden_size": 96}).unsupported
    assert "within 64" in unsupported_text({"sliding_window": 64}, 500)
    assert unsupported_text({"sliding_window": None}, 500) == unsupported_text({}, 500) == ""
    scaled = {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10_000.0}}
    assert "yarn" in unsupported_text(scaled, 500)


@pytest.mark.torch
def test_a_plan_refuses_a_denoiser_of_the_other_pipeline(tmp_path: Path) -> None:
    variant = replace(SPRINT, pipeline="SanaPipeline", scheduler=FLOW_DPM)
    opened = open_folder(make_variant(tmp_path / "mixed", variant))
    with pytest.raises(ConversionError, match="Sana-Sprint") as caught:
        make_plan(opened, Options(target="cpu"), tmp_path / "graphs")
    assert caught.value.code == "component.unsupported"


@pytest.mark.torch
def test_a_single_file_belongs_to_one_of_the_two_and_may_have_another_autoencoder(tmp_path: Path) -> None:
    folders = {
        name: make_variant(tmp_path / name, SANA_VARIANTS[name], seed=seed)
        for seed, name in enumerate(("sana", "sana-sprint"))
    }
    files = {
        name: transformer_files.write(
            transformer_files.denoiser(folder, name), tmp_path / f"{name}.safetensors"
        )
        for name, folder in folders.items()
    }
    for name, other, said in (
        ("sana", "sana-sprint", "guidance_embeds False; the base sana-sprint has True"),
        ("sana-sprint", "sana", "guidance_embeds True; the base sana has False"),
    ):
        with pytest.raises(ConversionError, match=said) as caught:
            open_file(files[name], base=open_folder(folders[other]))
        assert caught.value.code == "checkpoint.other_base"
        with pytest.raises(ConversionError, match="lacks text_encoder, vae, tokenizer"):
            open_file(files[name])
    folder = folders["sana-sprint"] / "vae"
    theirs = values(open_folder(folders["sana-sprint"]), "vae")
    for given in (folder, next(folder.glob("*.safetensors"))):
        opened = open_file(files["sana"], base=open_folder(folders["sana"]), autoencoder=given)
        found = values(opened, "vae")
        assert found.keys() == theirs.keys()
        assert all(np.array_equal(found[tensor], numbers) for tensor, numbers in theirs.items())


@pytest.mark.parametrize(
    "pipeline",
    ["SanaControlNetPipeline", "SanaPAGPipeline", "SanaVideoPipeline", "SanaImageToVideoPipeline"],
)
def test_other_pipelines_of_sana_are_refused_by_their_name(pipeline: str) -> None:
    with pytest.raises(ConversionError, match=pipeline) as caught:
        families_of(pipeline)
    assert "SanaPipeline, SanaSprintImg2ImgPipeline, SanaSprintPipeline" in caught.value.hint


@pytest.mark.torch
@pytest.mark.parametrize(("name", "scheduler"), [("sana", SCM), ("sana-sprint", FLOW_DPM)])
def test_a_scheduler_of_the_other_model_is_refused(
    name: str, scheduler: dict[str, Any], tmp_path: Path
) -> None:
    opened = open_folder(make_variant(tmp_path / "mixed", replace(SANA_VARIANTS[name], scheduler=scheduler)))
    with pytest.raises(SetupError, match="cannot step") as caught:
        check_scheduler("it", opened, "")
    assert caught.value.code == "scheduler.unsupported"
    assert caught.value.hint


@pytest.mark.torch
@pytest.mark.parametrize("cap", [50.0, None])
def test_gemmas_stream_is_scaled_without_a_change_of_its_states(cap: float | None) -> None:
    """And scores without a cap are not capped."""
    import torch
    from transformers import Gemma2Config, Gemma2Model

    from tests.sd3_checkpoints import random_weights

    torch.manual_seed(0)
    config = Gemma2Config(**{**GEMMA2, "vocab_size": 300, "attn_logit_softcapping": cap})
    model = random_weights(Gemma2Model(config)).eval()
    ids = torch.randint(0, 300, (2, 20))
    mask = torch.ones(2, 20, dtype=torch.int32)
    mask[1, 15:] = 0
    assert GEMMA2_TEXT.reference is not None
    with torch.inference_mode():
        expected = GEMMA2_TEXT.reference(model)(ids, mask)
        found = GEMMA2_TEXT.wrap(model)(ids, mask)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()

"""Stable Diffusion 3 beside the contract: with and without T5, both names of T5's table, sizes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conversions import graphs
from conversions.checkpoint.folder import component_tensors, open_folder
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.families import stable_diffusion_3
from conversions.family import folders_left_out
from conversions.options import Options
from conversions.package.layout import Staging, open_package
from conversions.package.package_metadata import copy_pipeline_files
from conversions.plan import make_plan
from conversions.providers.devices import CPU
from conversions.recipe import EncodedPrompt, GuidedPrompts, ImageSize
from conversions.verification.parity import verify
from conversions.weights.binding import bind
from conversions.weights.expression import Scale
from sdsetup.error_hints import hint_for
from tests.checkpoints import VARIANTS, make_variant
from tests.lora_packages import make_package_with

pytestmark = pytest.mark.torch

TABLE, COPY = "shared.weight", "encoder.embed_tokens.weight"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_variant(tmp_path_factory.mktemp("sd3") / "tiny", VARIANTS["stable-diffusion-3"])


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("component", "field", "value", "told"),
    [
        ("text_encoder_2", "hidden_size", 80, "112 wide, but the transformer reads at most 96"),
        ("text_encoder_3", "d_model", 64, "T5 encoder's states are 64 wide, but the transformer reads 96"),
        (
            "text_encoder",
            "projection_dim",
            24,
            "pooled states are 48 wide, but the transformer reads 40",
        ),
    ],
)
def test_an_encoder_that_does_not_fit_the_transformer_is_named(
    checkpoint: Path, component: str, field: str, value: int, told: str
) -> None:
    components = dict(open_folder(checkpoint).configs.components)
    configs = open_folder(checkpoint).configs
    assert stable_diffusion_3.FAMILY.recipe(configs).unsupported == ""
    components[component] = {**components[component], field: value}
    assert told in stable_diffusion_3.FAMILY.recipe(replace(configs, components=components)).unsupported


def test_t5_is_left_out_with_its_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    whole, opened = open_folder(checkpoint), open_folder(checkpoint, without={"t5"})
    assert "text_encoder_3" in whole.components
    assert "text_encoder_3" not in opened.components
    assert opened.tokenizers == ("tokenizer", "tokenizer_2")
    plans = [make_plan(each, Options(target="cpu"), None) for each in (whole, opened)]
    assert set(plans[0].submodels) - set(plans[1].submodels) == {"text_encoder_3"}
    assert plans[0].fingerprint != plans[1].fingerprint
    staging = Staging(tmp_path / "package", "test")
    staging.begin()
    copy_pipeline_files(opened, Options(), staging)
    index = json.loads((staging.folder / "model_index.json").read_text("utf-8"))
    assert index["text_encoder_3"] == index["tokenizer_3"] == [None, None]
    assert not (staging.folder / "tokenizer_3").exists()
    assert (staging.folder / "tokenizer_2").is_dir()
    assert folders_left_out("StableDiffusion3Pipeline", ["t5"]) >= {"text_encoder_3", "tokenizer_3"}


@pytest.mark.parametrize("removed", ["text_encoder_3", "text_encoder_3/model.safetensors"])
def test_a_t5_that_was_not_downloaded_is_dropped_when_asked(checkpoint: Path, removed: str) -> None:
    path = checkpoint / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(checkpoint / "tokenizer_3")
    with pytest.raises(ConversionError) as caught:
        open_folder(checkpoint)
    assert caught.value.code == "checkpoint.optional_missing"
    assert "--drop-t5" in hint_for(caught.value)
    make_plan(open_folder(checkpoint, without={"t5"}), Options(target="cpu"), None)


def stored_as(name: str, checkpoint: Path) -> Path:
    path = checkpoint / "text_encoder_3" / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = tensors[TABLE].copy()
    if name != TABLE:
        return save(path, {each: tensors[each] for each in tensors if each != TABLE})
    return save(path, {**tensors, COPY: tensors[TABLE].copy()})


def save(path: Path, tensors: dict[str, Any]) -> Path:
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_t5_s_table_may_be_stored_under_either_name_or_both(checkpoint: Path, tmp_path: Path) -> None:
    submodel = next(each for each in open_folder(checkpoint).submodels if each.name == "text_encoder_3")
    model = None
    for stored in (None, TABLE, COPY):
        if stored is not None:
            stored_as(stored, checkpoint)
        opened = open_folder(checkpoint)
        component = opened.components["text_encoder_3"]
        model = model or graphs.unpack(
            graphs.trace_and_pack(submodel.kind, component.config), submodel.kind, component.config
        )
        tensors = component_tensors(opened.storage, component)
        bound = bind(component.name, [(submodel, model)], tensors)
        assert bound.ignored == ()
        (table,) = (each for each in bound.bindings[submodel.name] if each.initializer == TABLE)
        assert isinstance(table.source, Scale)
        assert table.source.factor == 2**-6


@pytest.mark.robustness
def test_of_two_tables_that_differ_the_one_counts_that_transformers_reads(
    checkpoint: Path, graph_cache: Path, tmp_path: Path
) -> None:
    """Its encoder then keeps a table of its own."""
    path = checkpoint / "text_encoder_3" / "model.safetensors"
    tensors = load_file(path)
    save(path, {**tensors, COPY: tensors[TABLE][::-1].copy()})
    package = open_package(make_package_with(checkpoint, tmp_path / "package", graph_cache))
    report = verify(package, open_folder(checkpoint), device=CPU, only={"text_encoder_3"}, listener=ignore)
    assert report.passed, report.all_problems


class Prompts:
    """Turns every word into one token."""

    def encode(self, prompt: str, tokenizer: str, *, at_least: int = 1, length: int = 0) -> EncodedPrompt:
        del tokenizer
        shape = (max(at_least, 1 + len(prompt) // 1000), length or 77)
        return EncodedPrompt(tokens=np.ones(shape, np.int32), weights=np.ones(shape, np.float32))

    def embed(self, hidden: Any, encoded: EncodedPrompt) -> Any:
        del encoded
        return hidden.reshape(1, -1, hidden.shape[-1])


def run(submodel: str, inputs: dict[str, Any]) -> dict[str, Any]:
    chunks, length = inputs["input_ids"].shape
    if submodel == "text_encoder_3":
        return {"last_hidden_state": np.ones((chunks, length, 96), np.float32)}
    width, pooled = {"text_encoder": (32, 16), "text_encoder_2": (48, 24)}[submodel]
    states = {f"hidden_states.{layer}": np.full((chunks, length, width), layer) for layer in range(4)}
    return {**states, "text_embeds": np.ones((chunks, pooled), np.float32)}


@pytest.mark.parametrize(("prompt", "tokens"), [("a horse", 77 + 256), ("a" * 1000, 2 * (77 + 256))])
@pytest.mark.parametrize("without", [(), ("t5",)])
def test_no_word_is_lost_and_without_t5_its_states_are_zeros(
    prompt: str, tokens: int, without: tuple[str, ...], written: Path
) -> None:
    recipe = open_folder(written, without=without).recipe
    request = GuidedPrompts(
        prompt=prompt,
        negative_prompt="",
        guidance_scale=4.5,
        clip_skip=0,
        size=ImageSize(width=128, height=128),
    )
    conditioning = recipe.encode(run, Prompts(), request)
    (inputs,) = conditioning.runs
    chunks = tokens // (77 + 256)
    words = 77 * chunks
    states = inputs["encoder_hidden_states"]
    assert states.shape == (2, words + 256 * (1 if without else chunks), 96)
    # The states before the last layer, which is the second of two and the third of three; then zeros.
    assert [float(states[0, 0, place]) for place in (0, 31, 32, 79, 80, 95)] == [1, 1, 2, 2, 0, 0]
    assert np.all(states[:, words:] == (0 if without else 1))
    assert inputs["pooled_projections"].shape == (2, 40)


def test_sizes_beyond_the_table_of_positions_are_known(written: Path) -> None:
    recipe = open_folder(written).recipe
    assert (recipe.size_multiple, recipe.largest_side) == (16, 80 * 16)

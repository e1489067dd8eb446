"""All names that an adapter may give to a module."""

from __future__ import annotations

import pytest

from conversions.weights.lora.module_names import AdaptedComponent, ModuleIndex

TENSORS = (
    "text_model.encoder.layers.0.fc1.weight",
    "text_model.encoder.layers.0.fc1.bias",
    "text_model.norm.bias",
    "other.fc1.weight",
    "text_model.table",
    "a.b_c.weight",
    "a_b.c.weight",
)


def index(**changes: object) -> ModuleIndex:
    adapted = AdaptedComponent(component="text_encoder", prefixes=("lora_te1", "lora_te"))
    return ModuleIndex.of(AdaptedComponent(**{**vars(adapted), **changes}), TENSORS)  # type: ignore[arg-type]


FC1 = "text_model.encoder.layers.0.fc1"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("lora_te1_text_model_encoder_layers_0_fc1", FC1),
        ("lora_te_text_model_encoder_layers_0_fc1", FC1),
        (f"text_encoder.{FC1}", FC1),
        (f"base_model.model.{FC1}", FC1),
        ("lycoris_text_model_encoder_layers_0_fc1", FC1),
        (FC1, FC1),
        ("lora_te1_text_model_norm", "text_model.norm"),
        ("lora_te1_other_fc1", "other.fc1"),
        # The second text encoder's and other components' are none of this one.
        ("lora_te2_text_model_encoder_layers_0_fc1", None),
        ("lora_te1text_model_encoder_layers_0_fc1", None),
        ("text_model_encoder_layers_0_fc1", None),
        ("text_encoder_2." + FC1, None),
        ("lora_te1_text_model", None),
        ("lora_te1_text_model_table", None),
        ("text_encoder.text_model", None),
        ("", None),
    ],
)
def test_a_module_is_found_by_each_trainer_s_name_of_it(name: str, module: str | None) -> None:
    assert index().find(name) == module


def test_a_name_that_two_modules_share_says_too_little() -> None:
    found = index()
    assert found.find("lora_te1_a_b_c") is None
    assert found.find("a.b_c") == "a.b_c"
    assert found.find("text_encoder.a_b.c") == "a_b.c"


def test_a_beginning_that_libraries_leave_out_or_add_changes_nothing() -> None:
    found = index(optional="text_model.")
    short = FC1.removeprefix("text_model.")
    for name in (FC1, short, f"text_encoder.{short}", "lora_te1_encoder_layers_0_fc1"):
        assert found.find(name) == FC1
    assert found.find("text_model.other.fc1") == "other.fc1"
    assert index().find(short) is None


def test_names_of_the_first_publication_are_known_where_there_is_a_table() -> None:
    asked: list[tuple[str, ...]] = []

    def original(tensors: object) -> dict[str, str]:
        asked.append(tuple(tensors))  # type: ignore[arg-type]
        return {FC1: "transformer.resblocks.0.mlp.c_fc"}

    found = index(original=original)
    assert asked == [TENSORS]
    assert found.find("lora_te1_transformer_resblocks_0_mlp_c_fc") == FC1
    assert found.find("transformer.resblocks.0.mlp.c_fc") == FC1
    assert found.find(FC1) == FC1
    assert index().find("transformer.resblocks.0.mlp.c_fc") is None


def test_a_component_has_no_further_names_unless_it_says_so() -> None:
    plain = AdaptedComponent(component="unet", prefixes=())
    assert (plain.optional, plain.original, plain.tokenizer, plain.embedding) == ("", None, "", "")

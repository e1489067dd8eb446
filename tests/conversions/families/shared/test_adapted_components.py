"""Names that trainers of adapters give to the components of Stable Diffusion's families."""

from __future__ import annotations

import pytest

from conversions.families.shared.adapted_components import ADAPTED_TEXT, ADAPTED_TEXT_2, ADAPTED_UNET
from conversions.weights.lora.module_names import AdaptedComponent, ModuleIndex

FC1 = "encoder.layers.0.mlp.fc1"
TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
ENCODER = (f"{FC1}.weight", f"{FC1}.bias", "embeddings.token_embedding.weight")
UNET = (f"{TO_Q}.weight", "down_blocks.0.resnets.0.conv1.weight", "conv_in.weight")


@pytest.mark.parametrize(
    ("component", "name", "module"),
    [
        (ADAPTED_UNET, "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", TO_Q),
        (ADAPTED_UNET, "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", TO_Q),
        (ADAPTED_UNET, "lora_unet_input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
        (ADAPTED_UNET, f"unet.{TO_Q}", TO_Q),
        (ADAPTED_UNET, "lora_te_conv_in", None),
        (ADAPTED_TEXT, "lora_te_text_model_encoder_layers_0_mlp_fc1", FC1),
        (ADAPTED_TEXT, "lora_te1_text_model_encoder_layers_0_mlp_fc1", FC1),
        (ADAPTED_TEXT, f"text_encoder.text_model.{FC1}", FC1),
        (ADAPTED_TEXT, "lora_te2_text_model_encoder_layers_0_mlp_fc1", None),
        (ADAPTED_TEXT_2, "lora_te2_text_model_encoder_layers_0_mlp_fc1", FC1),
        (ADAPTED_TEXT_2, f"text_encoder_2.text_model.{FC1}", FC1),
        (ADAPTED_TEXT_2, "lora_te1_text_model_encoder_layers_0_mlp_fc1", None),
    ],
)
def test_modules_are_found_by_trainers_names(
    component: AdaptedComponent, name: str, module: str | None
) -> None:
    index = ModuleIndex.of(component, UNET if component is ADAPTED_UNET else ENCODER)
    assert index.find(name) == module


def test_words_go_into_each_encoder_s_own_table_and_tokenizer() -> None:
    found = [(each.component, each.tokenizer) for each in (ADAPTED_UNET, ADAPTED_TEXT, ADAPTED_TEXT_2)]
    assert found == [("unet", ""), ("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")]
    assert {each.embedding for each in (ADAPTED_TEXT, ADAPTED_TEXT_2)} == {ENCODER[2]}

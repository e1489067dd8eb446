"""Keys as trainers write them, by hand: the module and the part of each."""

from __future__ import annotations

import pytest

from conversions.weights.lora.adapter_keys import AdapterKey, parse_key

UNET = "lora_unet_mid_block_attentions_0_proj_in"
DOTTED = "unet.mid_block.attentions.0.proj_in"
SUFFIXES = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_A.default.weight": "down",
    "lora_B.default.weight": "up",
    "lora_A.default_0.weight": "down",
    "lora_B.default_0.weight": "up",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_magnitude_vector.default.weight": "magnitude",
    "lora_magnitude_vector.default_0.weight": "magnitude",
    "dora_scale": "dora_scale",
    "alpha": "alpha",
    "lora.alpha": "alpha",
    "lora_linear_layer.alpha": "alpha",
    "diff": "diff",
    "diff_b": "diff_b",
    "w_norm": "diff",
    "b_norm": "diff_b",
    "hada_w1_a": "hada_w1_a",
    "hada_w1_b": "hada_w1_b",
    "hada_w2_a": "hada_w2_a",
    "hada_w2_b": "hada_w2_b",
    "hada_t1": "hada_t1",
    "hada_t2": "hada_t2",
    "lokr_w1": "lokr_w1",
    "lokr_w1_a": "lokr_w1_a",
    "lokr_w1_b": "lokr_w1_b",
    "lokr_w2": "lokr_w2",
    "lokr_w2_a": "lokr_w2_a",
    "lokr_w2_b": "lokr_w2_b",
    "lokr_t2": "lokr_t2",
}


@pytest.mark.parametrize("module", [UNET, DOTTED, "a"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_key_is_a_module_and_a_part(suffix: str, module: str) -> None:
    assert parse_key(f"{module}.{suffix}") == AdapterKey(module=module, part=SUFFIXES[suffix])


@pytest.mark.parametrize(
    "key",
    [
        *SUFFIXES,
        *(f".{suffix}" for suffix in ("alpha", "lora_down.weight")),
        f"{UNET}.weight",
        f"{UNET}_alpha",
        f"{UNET}.alphas",
        f"{UNET}.lora_down.bias",
        "emb_params",
        "",
        ".",
    ],
)
def test_what_no_trainer_writes_is_no_key(key: str) -> None:
    found = parse_key(key)
    # Some suffixes end as another does: "lora.alpha" is the alpha of a module "lora".
    assert found is None or (key in SUFFIXES and key == f"{found.module}.{key.rpartition('.')[2]}")


@pytest.mark.parametrize(
    ("key", "module", "part"),
    [
        ("unet.a.attn1.processor.to_q_lora.down.weight", "unet.a.attn1.to_q", "down"),
        ("unet.a.attn1.processor.to_k_lora.up.weight", "unet.a.attn1.to_k", "up"),
        ("unet.a.attn1.processor.to_v_lora.alpha", "unet.a.attn1.to_v", "alpha"),
        ("unet.a.attn1.processor.to_out_lora.up.weight", "unet.a.attn1.to_out.0", "up"),
        ("unet.a.attn1.to_q_lora.down.weight", "unet.a.attn1.to_q", "down"),
        ("te.0.self_attn.to_q_lora.down.weight", "te.0.self_attn.q_proj", "down"),
        ("te.0.self_attn.to_k_lora.up.weight", "te.0.self_attn.k_proj", "up"),
        ("te.0.self_attn.to_v_lora.alpha", "te.0.self_attn.v_proj", "alpha"),
        ("te.0.self_attn.to_out_lora.up.weight", "te.0.self_attn.out_proj", "up"),
    ],
)  # fmt: skip
def test_attention_processors_name_the_layer_that_they_change(key: str, module: str, part: str) -> None:
    assert parse_key(key) == AdapterKey(module=module, part=part)

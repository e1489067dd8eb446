"""What a key of an adapter file says: which module it changes, and which part of the change it is.

Source: the names that kohya-ss/sd-scripts (networks/lora.py), KohakuBlueleaf/LyCORIS (lycoris/modules, the
``weight_list`` of each), PEFT and diffusers 0.42 (utils/state_dict_utils.py) write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Each format's names of a part, and ours.
_PARTS = {
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
    **{name: name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    **{
        name: name
        for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    },
}
_LONGEST_FIRST = sorted(_PARTS, key=len, reverse=True)

# Attention processors of diffusers before 0.22: what is ``to_q_lora.down`` there changes ``to_q``.
_PROCESSOR = re.compile(r"^(.+?)\.(?:processor\.)?(to_[qkv]|to_out)_lora\.(down\.weight|up\.weight|alpha)$")
_PROCESSOR_PARTS = {"down.weight": "down", "up.weight": "up", "alpha": "alpha"}
_TEXT_LAYERS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True, kw_only=True)
class AdapterKey:
    """A key that was understood.

    Attributes:
        module: The module as the file writes it, with the prefix of its component.
        part: ``"down"``, ``"up"``, ``"alpha"``, ``"hada_w1_a"`` and the like.
    """

    module: str
    part: str


def parse_key(key: str) -> AdapterKey | None:
    """Understand a key of an adapter file; None where no format has such a key."""
    if found := _PROCESSOR.match(key):
        module, layer, part = found.groups()
        if module.endswith("self_attn"):
            layer = _TEXT_LAYERS[layer]
        elif layer == "to_out":
            layer = "to_out.0"
        return AdapterKey(module=f"{module}.{layer}", part=_PROCESSOR_PARTS[part])
    for suffix in _LONGEST_FIRST:
        if key.endswith(f".{suffix}") and len(key) > len(suffix) + 1:
            return AdapterKey(module=key[: -len(suffix) - 1], part=_PARTS[suffix])
    return None

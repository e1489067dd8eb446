"""Compute the changes of an adapter file with LyCORIS.

Run by a Python that has it, as ``python FILE IN OUT``. Writes the change of each module, without alpha, by
the module's name in the file.
"""

import sys

import torch


def main(source: str, target: str) -> None:
    from lycoris.functional import locon, loha, lokr
    from safetensors.torch import load_file, save_file

    modules: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in load_file(source).items():
        module, _, part = key.partition(".")
        modules.setdefault(module, {})[part.removesuffix(".weight")] = value.double()
    changes = {}
    for module, parts in modules.items():
        get = parts.get
        if "lora_down" in parts:
            change = locon.diff_weight(parts["lora_down"], parts["lora_up"], get("lora_mid"), gamma=1.0)
        elif "hada_w1_a" in parts:
            order = ("hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a", "hada_t1", "hada_t2")
            change = loha.diff_weight(*(get(name) for name in order), gamma=torch.tensor(1.0).double())
        else:
            order = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
            change = lokr.kron_weight(*(get(f"lokr_{name}") for name in order), scale=1.0)
        changes[module] = change.contiguous().float()
    save_file(changes, target)


if __name__ == "__main__":
    main(*sys.argv[1:])

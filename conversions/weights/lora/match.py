"""Match an adapter's layers with the weights of a model; name what does not fit, and what it is made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conversions.errors import ConversionError
from conversions.family import Family, all_families
from conversions.weights.expression import Tensors
from conversions.weights.lora.adapter_file import AdapterFile, Layer
from conversions.weights.lora.layer import MisfitError, merged
from conversions.weights.lora.module_names import ModuleIndex

_SHOWN = 8
# Modules of architectures that no family here has.
_FOREIGN = {
    "double_blocks": "FLUX",
    "single_transformer_blocks": "FLUX",
    "single_blocks": "FLUX",
    "joint_blocks": "Stable Diffusion 3",
    "transformer.transformer_blocks": "Stable Diffusion 3 or FLUX",
    "lora_prior_": "Stable Cascade",
    "diffusion_model.layers": "Lumina",
    "diffusion_model.blocks": "Wan",
}
# Layers whose input is the prompt's embedding, which has another width in every family.
_CROSS_ATTENTION = ("attn2.to_k", "attn2_to_k", "attn2.to_v", "attn2_to_v")
_INPUT_PARTS = ("down", "hada_w1_b")


@dataclass(frozen=True, kw_only=True)
class Matched:
    """An adapter's layers by the component and the module that each changes.

    Attributes:
        layers: For each component its modules and their layers.
        unmatched: Keys that belong to nothing in the model.
    """

    layers: Mapping[str, Mapping[str, Layer]]
    unmatched: tuple[str, ...]


def match(
    adapter: AdapterFile, components: Mapping[str, Tensors], family: Family, *, ignore_unmatched: bool
) -> Matched:
    """Match an adapter with the components of a model.

    Args:
        adapter: Its layers.
        components: The weights of each component of the model that adapters may change.
        family: What the model is.
        ignore_unmatched: Whether keys that belong to nothing are left out.

    Raises:
        ConversionError: ``lora.unmatched`` names keys that belong to nothing in the model, ``lora.foreign``
            means that none belongs there; ``lora.shape`` names layers that do not fit. All say what the
            adapter seems made for.
    """
    indices = [
        ModuleIndex.of(adapted, tuple(components[adapted.component]))
        for adapted in family.adapted
        if adapted.component in components
    ]
    layers: dict[str, dict[str, Layer]] = {index.adapted.component: {} for index in indices}
    unmatched = list(adapter.strange)
    misfits = []
    for layer in adapter.layers:
        places = [(index.adapted.component, name) for index in indices if (name := index.find(layer.module))]
        if len(places) != 1 or places[0][1] in layers[places[0][0]]:
            unmatched += layer.keys
            continue
        component, module = places[0]
        try:
            merged(layer, components[component], module, 1.0)
        except MisfitError as error:
            misfits.append(f"{layer.module}: {error}")
        else:
            layers[component][module] = layer
    if misfits:
        raise ConversionError(
            "lora.shape",
            f"{adapter.path} does not fit this model: {_list(misfits, '; ')}.{_guess(adapter, family)}",
            "Use an adapter that was made for this model.",
        )
    if not any(layers.values()):
        raise ConversionError(
            "lora.foreign",
            f"{adapter.path} has nothing that belongs to this model; its keys are {_list(unmatched)}."
            f"{_guess(adapter, family)}",
            "Use an adapter that was made for this model.",
        )
    if unmatched and not ignore_unmatched:
        raise ConversionError(
            "lora.unmatched",
            f"{len(unmatched)} keys of {adapter.path} belong to nothing in this model: {_list(unmatched)}."
            f"{_guess(adapter, family)}",
            "Use an adapter that was made for this model.",
        )
    return Matched(layers=layers, unmatched=tuple(unmatched))


def unmatched_notice(adapter: AdapterFile, matched: Matched) -> str:
    """Say what of an adapter is left out; empty where nothing is."""
    if not matched.unmatched:
        return ""
    return f"{adapter.path}: left out, as they belong to nothing in this model: {_list(matched.unmatched)}."


def _list(texts: Sequence[str], joint: str = ", ") -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return f"{joint.join(texts[:_SHOWN])}{more}"


def _guess(adapter: AdapterFile, family: Family) -> str:
    """Say what an adapter seems made for; empty where nothing tells."""
    found = _made_for(adapter)
    if not found or found == family.title:
        return ""
    return f" It looks like an adapter for {found}; this is {family.title}."


def _made_for(adapter: AdapterFile) -> str:
    names = [*(layer.module for layer in adapter.layers), *adapter.strange]
    for mark, title in _FOREIGN.items():
        if any(mark in name for name in names):
            return title
    widths = {
        layer.parts[part].shape[-1]
        for layer in adapter.layers
        if layer.module.endswith(_CROSS_ATTENTION)
        for part in _INPUT_PARTS
        if len(layer.parts[part].shape if part in layer.parts else ()) == 2
    }
    titles = {
        other.title
        for other in all_families()
        for graph in other.shipped
        if graph.config.get("cross_attention_dim") in widths
    }
    return " or ".join(sorted(titles))

"""The safety checker of Stable Diffusion 1.x: CLIP's vision tower against concepts that must not be shown."""

from __future__ import annotations

from typing import Any

from conversions.graph_kind import Config, GraphKind, Rename, TensorSpec
from conversions.submodels import config_fields

# Source: transformers 5.23's CLIPVisionConfig (and CLIPConfig's projection_dim); a test compares.
VISION_DEFAULTS: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def _vision(config: Config) -> dict[str, Any]:
    """Return the vision tower's fields; where both are given, the older ``vision_config_dict`` wins.

    Source: CLIPConfig.__init__ of transformers.
    """
    given = {**(config.get("vision_config") or {}), **(config.get("vision_config_dict") or {})}
    return {name: given.get(name, default) for name, default in VISION_DEFAULTS.items()}


def _relevant(config: Config) -> dict[str, Any]:
    return {"projection_dim": config.get("projection_dim", 512), **_vision(config)}


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    vision = _vision(config)
    side = vision["image_size"]
    return (
        TensorSpec(name="clip_input", dtype="float", shape=("batch", vision["num_channels"], side, side)),
        TensorSpec(name="images", dtype="float", shape=("batch", "height", "width", 3)),
    )


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    del config
    return (
        TensorSpec(name="out_images", dtype="float", shape=("batch", "height", "width", 3)),
        TensorSpec(name="has_nsfw_concepts", dtype="bool", shape=("batch",)),
    )


def _class() -> Any:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    return StableDiffusionSafetyChecker


def _create(config: Config) -> Any:
    from transformers import CLIPConfig

    return _class()(CLIPConfig(**config))


def _wrap(component: Any) -> Any:
    import torch
    from torch.nn.functional import normalize

    from conversions.graphs.export_rewrites import to_tokens

    class SafetyChecker(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(
            self, clip_input: torch.Tensor, images: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            """Black out what shows a concept.

            Source: StableDiffusionSafetyChecker.forward_onnx of diffusers: a concept counts when its cosine
            passes its threshold, all thresholds falling by 0.01 when a special-care concept was seen.
            """
            checker = self.model
            seen = normalize(checker.visual_projection(self._look(clip_input)))

            def above(concepts: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
                return seen @ normalize(concepts).t() - thresholds

            special = above(checker.special_care_embeds, checker.special_care_embeds_weights)
            care = (special.amax(1, keepdim=True) > 0).to(seen.dtype) * 0.01
            bad = (above(checker.concept_embeds, checker.concept_embeds_weights) + care).amax(1) > 0
            return images * (~bad).to(images.dtype)[:, None, None, None], bad

        def _look(self, pixels: torch.Tensor) -> torch.Tensor:
            """Return the pooled state of the vision tower, [batch, width]."""
            tower = self.model.vision_model
            patches = to_tokens(tower.embeddings.patch_embedding(pixels))
            summary = tower.embeddings.class_embedding.expand(patches.shape[0], 1, -1)
            states = torch.cat([summary, patches], 1) + tower.embeddings.position_embedding.weight
            states = tower.pre_layrnorm(states)
            for layer in tower.encoder.layers:
                states = layer(states, attention_mask=None)
            pooled: torch.Tensor = tower.post_layernorm(states[:, 0])
            return pooled

    return SafetyChecker()


def _clip_input(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    import numpy

    del config
    return random.standard_normal(shape).astype(numpy.float32)


def _images(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    import numpy

    del config
    return random.random(shape, numpy.float32)


SAFETY_CHECKER = GraphKind(
    fields=config_fields.SAFETY_CHECKER,
    id="safety_checker",
    class_name="StableDiffusionSafetyChecker",
    defaults={"projection_dim": 512, **VISION_DEFAULTS},
    irrelevant=frozenset(),
    relevant=_relevant,
    inputs=_inputs,
    outputs=_outputs,
    component_class=_class,
    create=_create,
    wrap=_wrap,
    renames=(Rename(pattern=r"^vision_model\.vision_model\.", replacement="vision_model."),),
    unused=(r"embeddings\.position_ids$",),
    sizes={"batch": 2, "height": 64, "width": 48},
    traced_sizes={"batch": 2, "height": 67, "width": 75},
    example={"clip_input": _clip_input, "images": _images},
)

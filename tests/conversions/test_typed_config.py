"""Configurations by the type of each field: what diffusers takes is taken, all else is one clear message."""

from __future__ import annotations

import inspect
import json
import math
from typing import Any

import pytest

from conversions.errors import ConversionError
from conversions.family import all_families
from conversions.submodels.autoencoder_dc import DC_DECODER
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.flux2 import FLUX2
from conversions.submodels.flux2_vae import FLUX2_DECODER
from conversions.submodels.flux_transformer import FLUX_TRANSFORMER
from conversions.submodels.pixart_transformer import PIXART_TRANSFORMER
from conversions.submodels.safety_checker import SAFETY_CHECKER, VISION_DEFAULTS
from conversions.submodels.sana_transformer import SANA_TRANSFORMER
from conversions.submodels.sd3_transformer import SD3_TRANSFORMER
from conversions.submodels.t5_encoder import T5_ENCODER
from conversions.submodels.unet import UNET
from conversions.submodels.vae import DECODER
from conversions.submodels.z_image import Z_IMAGE
from conversions.typed_config import Field, flag, nested, number, read_config, text, whole
from sdsetup.demo import checkpoint_path

FIELDS = {
    "text_encoder": CLIP_TEXT.fields,
    "unet": UNET.fields,
    "vae": DECODER.fields,
    "safety_checker": SAFETY_CHECKER.fields,
    "flux2": FLUX2.fields,
    "flux2_vae": FLUX2_DECODER.fields,
    "z_image": Z_IMAGE.fields,
    "sd3_transformer": SD3_TRANSFORMER.fields,
    "flux": FLUX_TRANSFORMER.fields,
    "pixart": PIXART_TRANSFORMER.fields,
    "sana": SANA_TRANSFORMER.fields,
    "dc": DC_DECODER.fields,
}
DEMO = checkpoint_path()
SOME = (
    whole("layers", 2, 1, 100, lists="allowed"),
    whole("size", None, 1, 1000),
    number("scale", 0.18, 1e-9, 1e6),
    number("shift", None, -10, 10),
    flag("upcast", True),
    text("act", "silu", choices=("silu", "gelu")),
    text("kind", "mid", nullable=True),
    whole("channels", (64,), 1, 4096, lists="always"),
    whole("dual", (), 0, 9, lists="always"),
    nested("vision", (whole("width", 768, 1, 4096),)),
)

GOOD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    (
        {"layers": None, "scale": None, "upcast": None, "act": None},
        {"layers": 2, "scale": 0.18, "upcast": True, "act": "silu"},
    ),
    ({"channels": None}, {"channels": [64]}),
    ({"dual": []}, {"dual": []}),
    ({"dual": None}, {"dual": []}),
    ({"size": None, "shift": None, "kind": None}, {"size": None, "shift": None, "kind": None}),
    ({"layers": [1, [2, 3], 4]}, {"layers": [1, [2, 3], 4]}),
    ({"scale": 1}, {"scale": 1}),
    ({"vision": None}, {"vision": None}),
    ({"vision": {"width": None, "more": [7]}}, {"vision": {"width": 768, "more": [7]}}),
    ({"unknown": {"a": -1}, "_class_name": "X"}, {"unknown": {"a": -1}, "_class_name": "X"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), GOOD)
def test_null_takes_the_default_and_the_rest_stays(given: dict[str, Any], expected: dict[str, Any]) -> None:
    before = json.dumps(given)
    assert read_config(SOME, given, "unet/config.json") == expected
    assert json.dumps(given) == before


BAD: list[tuple[dict[str, Any], str]] = [
    ({"layers": "2"}, 'layers = "2"; it must be a whole number from 1 to 100, or a list of such'),
    ({"layers": 0}, "layers = 0"),
    ({"layers": -1}, "layers = -1"),
    ({"layers": 101}, "layers = 101"),
    ({"layers": 10**30}, "layers = 1000000"),
    ({"layers": 10**400}, "layers = 1000000"),
    ({"scale": -(10**400)}, "scale = -1000000"),
    ({"layers": True}, "layers = true"),
    ({"layers": 2.0}, "layers = 2.0"),
    ({"layers": []}, "layers = []"),
    ({"layers": [1, -1]}, "layers = [1, -1]"),
    ({"layers": [1, None]}, "layers = [1, null]"),
    ({"layers": [[[1]]]}, "layers = [[[1]]]"),
    ({"layers": [1] * 65}, "layers = [1, 1"),
    ({"size": [64, 64]}, "size = [64, 64]; it must be a whole number from 1 to 1000, or null"),
    ({"scale": "0.18"}, 'scale = "0.18"'),
    ({"scale": math.nan}, "scale = NaN"),
    ({"scale": -math.inf}, "scale = -Infinity"),
    ({"scale": 0}, "scale = 0"),
    ({"upcast": 1}, "upcast = 1; it must be true or false"),
    ({"upcast": "true"}, 'upcast = "true"'),
    ({"act": "relu9"}, 'act = "relu9"; it must be one of gelu, silu'),
    ({"act": "x" * 10_000}, 'act = "xxx'),
    ({"act": ["silu"]}, 'act = ["silu"]'),
    ({"channels": 64}, "channels = 64; it must be a list, each a whole number"),
    ({"channels": []}, "channels = []"),
    ({"dual": [10]}, "dual = [10]"),
    ({"vision": []}, "vision = []"),
    ({"vision": {"width": "wide"}}, 'vision.width = "wide"'),
]


@pytest.mark.parametrize(("given", "said"), BAD)
def test_what_does_not_belong_is_named_with_file_field_and_value(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConversionError) as caught:
        read_config(SOME, given, "unet/config.json")
    assert caught.value.code == "config.invalid"
    assert caught.value.message.startswith("unet/config.json says ")
    assert said in caught.value.message
    assert len(caught.value.message) < 300
    assert caught.value.hint


def test_every_published_architecture_reads_unchanged() -> None:
    for shipped in (each for family in all_families() for each in family.shipped):
        given = json.loads(json.dumps(shipped.config))
        assert read_config(shipped.kind.fields, given, shipped.label) == given


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_the_demo_reads_unchanged(component: str) -> None:
    config = json.loads((DEMO / component / "config.json").read_text("utf-8"))
    assert read_config(FIELDS[component], config, component) == config


def defaults(fields: tuple[Field, ...]) -> dict[str, Any]:
    """The defaults of all fields but those that only tell where a file comes from."""
    return {each.name: plain(each.default) for each in fields if not each.name.startswith("_")}


def plain(value: Any) -> Any:
    return [plain(each) for each in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    "submodel",
    [
        UNET,
        DECODER,
        CLIP_TEXT,
        Z_IMAGE,
        FLUX2,
        FLUX2_DECODER,
        SD3_TRANSFORMER,
        T5_ENCODER,
        FLUX_TRANSFORMER,
        PIXART_TRANSFORMER,
        SANA_TRANSFORMER,
        DC_DECODER,
    ],
)
def test_the_defaults_are_those_of_the_submodels_and_no_field_is_forgotten(submodel: Any) -> None:
    mine = defaults(submodel.fields)
    assert {name: mine.get(name, ...) for name in submodel.defaults} == dict(submodel.defaults)


def test_the_safety_checkers_vision_defaults_are_those_of_the_submodel() -> None:
    vision = next(each for each in FIELDS["safety_checker"] if each.name == "vision_config")
    assert {name: defaults(vision.fields).get(name, ...) for name in VISION_DEFAULTS} == VISION_DEFAULTS


@pytest.mark.torch
@pytest.mark.parametrize(
    "component",
    ["unet", "vae", "flux2", "flux2_vae", "z_image", "sd3_transformer", "flux", "pixart", "sana", "dc"],
)
def test_every_field_of_diffusers_is_known(component: str) -> None:
    import diffusers

    kind = {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "flux2": diffusers.Flux2Transformer2DModel,
        "flux2_vae": diffusers.AutoencoderKLFlux2,
        "z_image": diffusers.ZImageTransformer2DModel,
        "sd3_transformer": diffusers.SD3Transformer2DModel,
        "flux": diffusers.FluxTransformer2DModel,
        "pixart": diffusers.PixArtTransformer2DModel,
        "sana": diffusers.SanaTransformer2DModel,
        "dc": diffusers.AutoencoderDC,
    }[component]
    parameters = dict(inspect.signature(kind.__init__).parameters)
    parameters.pop("self")
    mine = defaults(FIELDS[component])
    assert mine == {name: plain(each.default) for name, each in parameters.items()}


def test_a_list_in_a_list_may_be_empty_where_one_in_the_default_is() -> None:
    scales = {"decoder_qkv_multiscales": [[], [], [5], [3, 5]]}
    assert read_config(DC_DECODER.fields, scales, "config.json") == scales
    for wrong in ([], [[], "5"], [[[5]]], [[0]]):
        with pytest.raises(ConversionError, match="decoder_qkv_multiscales") as caught:
            read_config(DC_DECODER.fields, {"decoder_qkv_multiscales": wrong}, "config.json")
        assert caught.value.code == "config.invalid"
    with pytest.raises(ConversionError, match="block_out_channels"):
        read_config(DECODER.fields, {"block_out_channels": [[], [64]]}, "config.json")

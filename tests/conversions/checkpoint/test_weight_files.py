from __future__ import annotations

import pytest

from conversions.checkpoint.weight_files import choose
from conversions.errors import ConversionError

UNET = "unet/diffusion_pytorch_model"


def test_safetensors_win_over_pickles_of_higher_precision() -> None:
    chosen = choose([f"{UNET}.bin", f"{UNET}.fp16.safetensors"], "unet")
    assert chosen.files == (f"{UNET}.fp16.safetensors",)
    assert (chosen.format, chosen.variant, chosen.index) == ("safetensors", "fp16", None)


def test_the_plain_file_wins_unless_a_variant_is_asked_for() -> None:
    names = [f"{UNET}.fp16.safetensors", f"{UNET}.safetensors", f"{UNET}.bf16.safetensors"]
    assert choose(names, "unet").files == (f"{UNET}.safetensors",)
    assert choose(names, "unet", variant="fp16").files == (f"{UNET}.fp16.safetensors",)
    assert choose([f"{UNET}.safetensors"], "unet", variant="fp16").variant == ""


def test_the_weights_without_averaging_are_never_taken() -> None:
    names = [f"{UNET}.non_ema.safetensors", f"{UNET}.non_ema.bin", f"{UNET}.bin"]
    assert choose(names, "unet").files == (f"{UNET}.bin",)
    with pytest.raises(ConversionError) as caught:
        choose(names[:2], "unet")
    assert caught.value.code == "weights.absent"
    assert "non_ema" in caught.value.message


def test_a_transformers_component_is_found_by_its_own_names() -> None:
    names = [
        "text_encoder/pytorch_model.bin",
        "text_encoder/model.safetensors",
        "text_encoder/flax_model.msgpack",
    ]
    assert choose(names, "text_encoder").files == ("text_encoder/model.safetensors",)
    pickled = choose(names[:1], "text_encoder")
    assert pickled.format == "pickle"


def test_copies_for_other_runtimes_are_no_weights() -> None:
    names = [
        "unet/openvino_model.bin",
        "unet/model.onnx",
        "unet/weights.pb",
        "unet/diffusion_flax_model.msgpack",
    ]
    with pytest.raises(ConversionError):
        choose(names, "unet")


def test_another_component_with_the_same_prefix_is_not_mixed_in() -> None:
    with pytest.raises(ConversionError):
        choose(["text_encoder_2/model.safetensors"], "text_encoder")


@pytest.mark.parametrize(
    ("shard", "index", "variant"),
    [
        (f"{UNET}-0000{{}}-of-00002.safetensors", f"{UNET}.safetensors.index.json", ""),
        (f"{UNET}.fp16-0000{{}}-of-00002.safetensors", f"{UNET}.safetensors.index.fp16.json", "fp16"),
        (f"{UNET}-0000{{}}-of-00002.fp16.safetensors", f"{UNET}.fp16.safetensors.index.json", "fp16"),
        (f"{UNET}.fp16-0000{{}}-of-00002.safetensors", f"{UNET}.safetensors.fp16.index.json", "fp16"),
    ],
)
def test_shards_come_in_order_with_their_index(shard: str, index: str, variant: str) -> None:
    chosen = choose([shard.format(2), index, shard.format(1)], "unet")
    assert chosen.files == (shard.format(1), shard.format(2))
    assert chosen.index == index
    assert chosen.names == (shard.format(1), shard.format(2), index)
    assert chosen.variant == variant


def test_an_incomplete_set_of_shards_does_not_count() -> None:
    names = [f"{UNET}-00001-of-00003.safetensors", f"{UNET}-00003-of-00003.safetensors"]
    names += [f"{UNET}.safetensors.index.json", f"{UNET}.bin"]
    assert choose(names, "unet").format == "pickle"


def test_shards_of_two_sets_are_not_mixed() -> None:
    whole = [f"{UNET}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    rest = [f"{UNET}-0000{number}-of-00003.safetensors" for number in (1, 2)]
    index = f"{UNET}.safetensors.index.json"
    assert choose([*rest, *whole, index], "unet").files == tuple(whole)
    with pytest.raises(ConversionError, match="has no weights"):
        choose([rest[0], whole[1], index], "unet")
    with pytest.raises(ConversionError, match="has no weights"):
        choose([index], "unet")


def test_a_single_file_has_no_index() -> None:
    chosen = choose([f"{UNET}.safetensors"], "unet")
    assert chosen.names == (f"{UNET}.safetensors",)


def test_weights_at_the_top_of_a_folder_are_found() -> None:
    assert choose(["model.safetensors", "unet/model.safetensors"], "").files == ("model.safetensors",)

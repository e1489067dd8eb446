"""Operators as the tracer writes them: PyTorch's numbers at sizes other than the traced, in few nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conversions.graphs.traced_layers import agreeing, load_exporter, operators, random

pytestmark = pytest.mark.torch

HEADS, SIZE = 2, 3


@pytest.fixture(scope="module", autouse=True)
def _exporter() -> None:
    load_exporter()


def softmax(scores: Any) -> Any:
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def attended(query: Any, key: Any, value: Any, bias: Any = 0.0, scale: float = SIZE**-0.5) -> Any:
    """Multi-head attention in numpy."""
    query, key, value = (
        each.reshape(*each.shape[:2], HEADS, -1).transpose(0, 2, 1, 3) for each in (query, key, value)
    )
    mixed = softmax(query @ key.transpose(0, 1, 3, 2) * scale + bias) @ value
    return mixed.transpose(0, 2, 1, 3).reshape(mixed.shape[0], mixed.shape[2], -1)


def test_attention_is_one_node_with_a_bias_or_a_scale_or_neither() -> None:
    from conversions.graphs.export_rewrites import attention

    width = HEADS * SIZE
    shapes = {
        "query": ("batch", "sequence", width),
        "key": ("batch", "keys", width),
        "value": ("batch", "keys", width),
        "bias": ("batch", HEADS, "sequence", "keys"),
    }
    feeds = {"query": random(3, 5, width), "key": random(3, 7, width), "value": random(3, 7, width, seed=1)}
    feeds["bias"] = random(3, HEADS, 5, 7)
    query, key, value, bias = feeds.values()
    model = agreeing(
        lambda query, key, value, bias: (
            attention(query, key, value, None, HEADS),
            attention(query, key, value, bias, HEADS),
            attention(query, key, value, bias, HEADS, 1.0),
        ),
        shapes,
        feeds,
        (
            attended(query, key, value),
            attended(query, key, value, bias),
            attended(query, key, value, bias, 1.0),
        ),
    )
    assert operators(model) == ["MultiHeadAttention"] * 3
    assert {node.domain for node in model.graph} == {"com.microsoft"}
    scales = [node.attributes.get_float("scale", 0.0) for node in model.graph]
    assert sorted(scales) == [0.0, 0.0, 1.0]


def test_later_words_are_hidden_and_images_become_tokens_and_images_again() -> None:
    from conversions.graphs.export_rewrites import causal_bias, to_image, to_tokens

    image, ids = random(3, 4, 5, 7), np.zeros((3, 6), np.int32)
    tokens = image.reshape(3, 4, 35).transpose(0, 2, 1)
    later = np.where(np.arange(6)[None] > np.arange(6)[:, None], -10_000.0, 0.0)
    model = agreeing(
        lambda image, ids: (
            to_tokens(image),
            to_image(to_tokens(image) * 2.0, image),
            causal_bias(ids, HEADS),
        ),
        {"image": ("batch", 4, "rows", "columns"), "ids": ("batch", "sequence")},
        {"image": image, "ids": ids},
        (tokens, image * 2, np.broadcast_to(later, (3, HEADS, 6, 6))),
    )
    for node in model.graph:
        if node.op_type == "Reshape" and node.inputs[1].const_value is None:
            assert node.inputs[1].producer().op_type == "Shape"


def test_group_norms_of_images_and_of_tokens() -> None:
    import torch
    from torch.nn.functional import group_norm

    image, tokens = random(3, 4, 5, 7) * 2 + 1, random(3, 4, 9)
    weight, bias = random(4), random(4, seed=1)

    def normal(x: Any, epsilon: float, by: Any = 1.0, plus: Any = 0.0) -> Any:
        groups = x.reshape(len(x), 2, -1)
        centred = groups - groups.mean(-1, keepdims=True)
        found = (centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)).reshape(x.shape)
        places = (1, -1, *(1 for _ in x.shape[2:]))
        return found * np.reshape(by, places) + np.reshape(plus, places)

    model = agreeing(
        lambda image, tokens: (
            group_norm(image, 2, torch.from_numpy(weight), torch.from_numpy(bias), 0.25),
            group_norm(image, 2),
            group_norm(tokens, 2, torch.from_numpy(weight), torch.from_numpy(bias)),
        ),
        {"image": ("batch", 4, "rows", "columns"), "tokens": ("batch", 4, "sequence")},
        {"image": image, "tokens": tokens},
        (normal(image, 0.25, weight, bias), normal(image, 1e-5), normal(tokens, 1e-5, weight, bias)),
    )
    assert operators(model).count("InstanceNormalization") == 3
    assert "Shape" not in operators(model)


def test_images_are_enlarged_by_a_factor_or_to_a_size() -> None:
    from torch.nn.functional import interpolate

    small, large = random(3, 2, 5, 4), random(3, 2, 11, 7)
    rows, columns = (np.arange(wanted) * given // wanted for wanted, given in ((11, 5), (7, 4)))
    model = agreeing(
        lambda small, large: (
            interpolate(small, scale_factor=2.0, mode="nearest"),
            interpolate(small, size=large.shape[2:], mode="nearest"),
        ),
        {"small": ("batch", 2, "rows", "columns"), "large": ("batch", 2, "sequence", "keys")},
        {"small": small, "large": large},
        (small.repeat(2, 2).repeat(2, 3), small[:, :, rows][:, :, :, columns]),
    )
    assert operators(model).count("Resize") == 2


def test_widths_are_split_and_cut_and_curves_are_one_node() -> None:
    import torch
    from torch.nn.functional import gelu

    x = random(3, 5, 6)
    tensor = torch.from_numpy(x)
    exact = 0.5 * tensor * (1 + torch.erf(tensor / 2**0.5))
    near = 0.5 * tensor * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (tensor + 0.044715 * tensor**3)))
    model = agreeing(
        lambda x: (
            *x.chunk(3, dim=2),
            gelu(x),
            gelu(x, approximate="tanh"),
            x[:, 2:],
            x[:, :, 1:4],
            x[:, 1 : x.shape[1] - 1],
            x[:, :, ::2],
            x[:, :],
        ),
        {"x": ("batch", "sequence", 6)},
        {"x": x},
        (
            *np.split(x, 3, axis=2),
            exact,
            near,
            x[:, 2:],
            x[:, :, 1:4],
            x[:, 1:4],
            x[:, :, ::2],
            x,
        ),
    )
    found = operators(model)
    assert [found.count(each) for each in ("Split", "Gelu", "FastGelu", "Slice")] == [1, 1, 1, 4]


def test_times_become_waves_in_either_order() -> None:
    import torch
    from diffusers.models.embeddings import Timesteps

    from conversions.graphs.export_rewrites import make_traceable

    times = np.array([0.5, 481.0, 999.0], np.float32)
    layers = [
        Timesteps(8, flip_sin_to_cos=True, downscale_freq_shift=0),
        Timesteps(8, flip_sin_to_cos=False, downscale_freq_shift=1, scale=100),
        Timesteps(7, flip_sin_to_cos=True, downscale_freq_shift=0),
    ]
    expected = tuple(layer(torch.from_numpy(times)) for layer in layers)
    module = torch.nn.ModuleList(layers)
    make_traceable(module)
    agreeing(
        lambda times: tuple(layer(times) for layer in module),
        {"times": ("batch",)},
        {"times": times},
        expected,
    )


@pytest.mark.parametrize("sized", [False, True])
def test_layers_that_enlarge_keep_their_convolution(sized: bool) -> None:
    import torch
    from diffusers.models.upsampling import Upsample2D

    from conversions.graphs.export_rewrites import make_traceable

    torch.manual_seed(0)
    layers = [
        Upsample2D(4, use_conv=True),
        Upsample2D(4, use_conv=True, norm_type="ln_norm") if not sized else Upsample2D(4, use_conv=True),
        Upsample2D(4),
    ]
    image = torch.randn(2, 4, 3, 5)
    size = (7, 9) if sized else None
    if not sized:
        layers[1].norm = None  # another kind of norm than none is left to the library
    with torch.inference_mode():
        expected = [layer(image, size) for layer in layers]
        module = torch.nn.ModuleList(layers)
        make_traceable(module)
        for layer, wanted in zip(layers, expected, strict=True):
            torch.testing.assert_close(layer(image, size), wanted)


@pytest.mark.parametrize(
    ("spatial", "more"),
    [
        (False, {}),
        (False, {"cross_attention_dim": 6}),
        (False, {"rescale_output_factor": 2.0, "residual_connection": True}),
        (True, {"norm_num_groups": 2, "residual_connection": True, "rescale_output_factor": 1.5}),
        (True, {}),
    ],
)
def test_attention_of_diffusers_in_all_its_forms(spatial: bool, more: dict[str, Any]) -> None:
    import torch
    from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

    from conversions.graphs.export_rewrites import AttentionProcessor, make_traceable

    torch.manual_seed(0)
    states = torch.randn(2, 8, 3, 5) if spatial else torch.randn(2, 7, 8)
    words = torch.randn(2, 4, 6) if "cross_attention_dim" in more else None
    bias = None if spatial else torch.randn(2, HEADS, 7, 4 if words is not None else 7)
    for processor in (AttnProcessor(), AttnProcessor2_0()):
        layer = Attention(8, heads=HEADS, dim_head=4, bias=True, processor=processor, **more).eval()
        with torch.inference_mode():
            expected = layer(states, words, None if bias is None else bias.flatten(0, 1))
            make_traceable(layer)
            assert isinstance(layer.processor, AttentionProcessor)
            found = layer.processor(layer, states, words, bias)
        torch.testing.assert_close(found, expected)


def test_what_is_not_known_is_traced_as_it_is() -> None:
    import torch
    from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor

    from conversions.graphs.export_rewrites import make_traceable

    layer = Attention(8, heads=2, dim_head=4, added_kv_proj_dim=6, processor=AttnAddedKVProcessor())
    make_traceable(torch.nn.ModuleList([layer]))
    assert type(layer.processor) is AttnAddedKVProcessor

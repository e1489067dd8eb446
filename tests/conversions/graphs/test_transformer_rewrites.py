"""Layers of transformers as the tracer writes them: PyTorch's numbers at sizes other than the traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conversions.graphs.traced_layers import agreeing, load_exporter, operators, random

pytestmark = pytest.mark.torch

HEADS, SIZE = 4, 6


@pytest.fixture(scope="module", autouse=True)
def _exporter() -> None:
    load_exporter()


def by_head(x: Any, heads: int = HEADS) -> Any:
    return x.reshape(*x.shape[:2], heads, -1)


def turned(x: Any, angles: Any, heads: int, *, interleaved: bool) -> Any:
    """Turn pairs of a head's numbers, as complex ones."""
    split = by_head(x, heads)
    half = split.shape[-1] // 2
    first, second = (
        (split[..., 0::2], split[..., 1::2]) if interleaved else (split[..., :half], split[..., half:])
    )
    pairs = (first + 1j * second) * np.exp(1j * angles)[None, :, None]
    found = np.stack([pairs.real, pairs.imag], -1 if interleaved else -2)
    return found.reshape(x.shape)


@pytest.mark.parametrize("patch", [1, 2])
def test_patches_are_put_together(patch: int) -> None:
    from conversions.graphs.transformer_rewrites import unpatchify

    rows, columns, channels = 4, 7, 3
    tokens = random(3, rows * columns, patch**2 * channels)
    like = random(3, 1, rows * patch, columns * patch)
    image = np.zeros((3, channels, rows * patch, columns * patch), np.float32)
    for row in range(rows):
        for column in range(columns):
            square = tokens[:, row * columns + column].reshape(3, patch, patch, channels)
            image[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = (
                square.transpose(0, 3, 1, 2)
            )
    model = agreeing(
        lambda tokens, like: (unpatchify(tokens, like, patch),),
        {
            "tokens": ("batch", "patches" if patch == 2 else "pixels", patch**2 * channels),
            "like": ("batch", 1, "rows", "columns"),
        },
        {"tokens": tokens, "like": like},
        (image,),
    )
    assert operators(model).count("DepthToSpace") == patch - 1


def test_widths_are_split_unevenly_but_by_constants_alone() -> None:
    import torch

    from conversions.graphs.transformer_rewrites import _write_split_sizes

    tokens = random(3, 5, 12)
    model = agreeing(
        lambda tokens: tuple(torch.split(tokens, [5, 4, 3], dim=-1)),
        {"tokens": ("batch", "sequence", 12)},
        {"tokens": tokens},
        (tokens[..., :5], tokens[..., 5:9], tokens[..., 9:]),
    )
    assert operators(model) == ["Slice"] * 3
    with pytest.raises(NotImplementedError, match="not constant"):
        _write_split_sizes(None, [1, object()], 0)


@pytest.mark.parametrize("interleaved", [False, True])
def test_heads_are_turned_by_positions(interleaved: bool) -> None:
    from conversions.graphs.transformer_rewrites import rotary

    x, angles = random(3, 9, HEADS * SIZE), random(9, SIZE // 2)
    model = agreeing(
        lambda x, cos, sin: (rotary(x, cos, sin, HEADS, interleaved),),
        {
            "x": ("batch", "sequence", HEADS * SIZE),
            "cos": ("sequence", SIZE // 2),
            "sin": ("sequence", SIZE // 2),
        },
        {"x": x, "cos": np.cos(angles), "sin": np.sin(angles)},
        (turned(x, angles, HEADS, interleaved=interleaved),),
    )
    assert operators(model) == ["RotaryEmbedding"]


def test_heads_are_split_merged_and_shared() -> None:
    from conversions.graphs.transformer_rewrites import merge_heads, repeat_heads, split_heads

    x = random(3, 5, HEADS * SIZE)
    model = agreeing(
        lambda x: (
            split_heads(x, HEADS),
            merge_heads(split_heads(x, HEADS) * 2.0),
            repeat_heads(x, 2, 3),
        ),
        {"x": ("batch", "sequence", HEADS * SIZE)},
        {"x": x},
        (by_head(x), x * 2, by_head(x, 2).repeat(3, 2).reshape(3, 5, -1)),
    )
    widest = max(len(value.shape) for node in model.graph for value in node.inputs if value and value.shape)
    assert widest <= 4


def test_padding_and_later_words_are_hidden_from_every_head() -> None:
    from conversions.graphs.transformer_rewrites import causal_padding_bias, padding_bias

    mask = np.ones((3, 5), np.int32)
    mask[1, 3:] = 0
    mask[2, :2] = 0
    later = np.arange(5)[None] > np.arange(5)[:, None]
    hidden = mask[:, None, None] == 0
    agreeing(
        lambda mask, queries: (causal_padding_bias(mask, HEADS), padding_bias(mask, queries, HEADS)),
        {"mask": ("batch", "keys"), "queries": ("batch", "sequence", 2)},
        {"mask": mask, "queries": random(3, 7, 2)},
        (
            np.where(np.broadcast_to(hidden | later, (3, HEADS, 5, 5)), -10_000.0, 0.0),
            np.where(np.broadcast_to(hidden, (3, HEADS, 7, 5)), -10_000.0, 0.0),
        ),
    )


def test_norms_of_all_libraries_are_one_node() -> None:
    import torch
    from diffusers.models.normalization import RMSNorm
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    from conversions.graphs.transformer_rewrites import make_norms_traceable

    class Own(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x

    width = 6
    norms = torch.nn.ModuleList(
        [
            RMSNorm(width, eps=0.5),
            RMSNorm(width, eps=0.01, elementwise_affine=False),
            RMSNorm(width, eps=0.02, bias=True),
            torch.nn.RMSNorm(width, eps=0.1),
            Qwen3RMSNorm(width, eps=0.2),
            T5LayerNorm(width, eps=0.3),
            Own(),
        ]
    )
    with torch.no_grad():
        for place, parameter in enumerate(norms.parameters()):
            parameter.copy_(torch.from_numpy(random(width, seed=place)))
    x = random(2, 3, width)

    def normed(epsilon: float, weight: Any, bias: float | Any = 0.0) -> Any:
        return 2 * (x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight + bias)

    weights = [random(width, seed=place) for place in range(6)]
    expected = (
        normed(0.5, weights[0]),
        normed(0.01, 1.0),
        normed(0.02, weights[1], weights[2]),
        normed(0.1, weights[3]),
        normed(0.2, weights[4]),
        normed(0.3, weights[5]),
        2 * x,
    )
    make_norms_traceable(norms)
    model = agreeing(
        lambda x: tuple(norm(x) * 2.0 for norm in norms),
        {"x": ("batch", "sequence", width)},
        {"x": x},
        expected,
    )
    assert operators(model).count("SimplifiedLayerNormalization") == 6
    assert {node.domain for node in model.graph if node.op_type.startswith("Simplified")} == {""}


@pytest.mark.parametrize("library", ["torch", "diffusers", "qwen3", "t5", "none"])
def test_norms_of_these_classes_are_rewritten_and_no_others(library: str) -> None:
    import torch
    from diffusers.models.normalization import RMSNorm
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    from conversions.graphs.transformer_rewrites import make_norms_traceable

    layer: Any = {
        "torch": lambda: torch.nn.RMSNorm(6),
        "diffusers": lambda: RMSNorm(6, eps=0.1),
        "qwen3": lambda: Qwen3RMSNorm(6),
        "t5": lambda: T5LayerNorm(6),
        "none": lambda: torch.nn.LayerNorm(6),
    }[library]()
    make_norms_traceable(torch.nn.Sequential(layer))
    assert ("forward" in vars(layer)) == (library != "none")


def test_shapes_that_a_trace_is_told_are_those_of_the_results() -> None:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from conversions.graphs import export_rewrites as export
    from conversions.graphs import position_rewrites as position
    from conversions.graphs import transformer_rewrites as transformer

    mask, image, tokens = torch.ones(2, 5, dtype=torch.int32), torch.randn(2, 3, 4, 6), torch.randn(2, 7, 12)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (export.attention, (tokens, torch.randn(2, 5, 12), torch.randn(2, 5, 12), None, 3)),
        (export.causal_bias, (mask, 3)),
        (export.to_tokens, (image,)),
        (export.to_image, (torch.randn(2, 24, 3), image)),
        (position.relative_bias, (torch.randn(4, 3), mask, [3, 1, 0, 1, 2])),
        (position.central_positions, (torch.randn(1, 64, 5), image, 8)),
        (transformer.rms_norm, (tokens, torch.randn(12), 1e-5)),
        (transformer.rotary, (tokens, torch.randn(7, 2), torch.randn(7, 2), 3, True)),
        (transformer.split_heads, (tokens, 3)),
        (transformer.merge_heads, (torch.randn(2, 7, 3, 4),)),
        (transformer.repeat_heads, (tokens, 3, 2)),
        (transformer.causal_padding_bias, (mask, 3)),
        (transformer.padding_bias, (mask, tokens, 3)),
        (transformer.unpatchify, (torch.randn(2, 6, 12), image, 2)),
    ]
    for operator, arguments in calls:
        real = operator(*arguments)
        with FakeTensorMode() as mode:
            told = operator(
                *(mode.from_tensor(each) if isinstance(each, torch.Tensor) else each for each in arguments)
            )
        assert tuple(told.shape) == tuple(real.shape), operator
        assert told.dtype == real.dtype


def test_a_norm_is_of_each_head_where_there_is_one() -> None:
    import torch

    from conversions.graphs.transformer_rewrites import norm_by_head

    x = torch.from_numpy(random(2, 3, HEADS * SIZE))
    assert norm_by_head(None, x, HEADS) is x
    found = norm_by_head(torch.nn.LayerNorm(SIZE, elementwise_affine=False), x, HEADS).numpy()
    heads = by_head(x.numpy())
    centred = heads - heads.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(by_head(found), expected, atol=1e-5)


@pytest.mark.parametrize("interleaved", [False, True])
def test_grouped_masked_and_scaled_attention_with_rotary_positions(interleaved: bool) -> None:
    from conversions.graphs.export_rewrites import attention
    from conversions.graphs.transformer_rewrites import causal_padding_bias, repeat_heads, rotary

    def forward(query: Any, key: Any, mask: Any, cos: Any, sin: Any) -> Any:
        query = rotary(query, cos, sin, HEADS, interleaved)
        key = repeat_heads(rotary(key, cos, sin, HEADS // 2, interleaved), HEADS // 2, 2)
        return (attention(query, key, key, causal_padding_bias(mask, HEADS), HEADS, 0.7),)

    query, key, angles = random(3, 9, HEADS * SIZE), random(3, 9, HEADS // 2 * SIZE), random(9, SIZE // 2)
    mask = np.ones((3, 9), dtype=np.int32)
    mask[1, 5:] = 0
    heads = by_head(turned(query, angles, HEADS, interleaved=interleaved)).transpose(0, 2, 1, 3)
    shared = by_head(turned(key, angles, HEADS // 2, interleaved=interleaved), HEADS // 2)
    shared = shared.repeat(2, 2).transpose(0, 2, 1, 3)
    scores = heads @ shared.transpose(0, 1, 3, 2) * 0.7
    scores = np.where(np.arange(9)[None] > np.arange(9)[:, None], -np.inf, scores)
    scores = np.where(mask[:, None, None] == 0, -np.inf, scores)
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = raised / raised.sum(-1, keepdims=True) @ shared
    width = HEADS * SIZE
    agreeing(
        forward,
        {
            "query": ("batch", "sequence", width),
            "key": ("batch", "sequence", width // 2),
            "mask": ("batch", "sequence"),
            "cos": ("sequence", SIZE // 2),
            "sin": ("sequence", SIZE // 2),
        },
        {"query": query, "key": key, "mask": mask, "cos": np.cos(angles), "sin": np.sin(angles)},
        (mixed.transpose(0, 2, 1, 3).reshape(3, 9, width),),
    )

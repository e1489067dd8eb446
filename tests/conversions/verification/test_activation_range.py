"""What ``ActivationRange`` sees while PyTorch runs; the rest of ``fp16_overflow`` needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from conversions.verification.fp16_overflow import ActivationRange

pytestmark = pytest.mark.torch


def seen(work: Callable[[Any], Any]) -> ActivationRange:
    import torch

    with torch.inference_mode(), ActivationRange() as activations:
        work(torch)
    return activations


def largest_of(work: Callable[[Any], Any]) -> float:
    return seen(work).largest


def test_what_lies_between_input_and_output_is_seen() -> None:
    def work(torch: Any) -> Any:
        ones = torch.nn.functional.linear(torch.full((2, 8), 300.0), torch.full((4, 8), -100.0))
        return torch.tanh(ones * 1e-9)

    assert largest_of(work) == pytest.approx(240_000)


def test_scores_count_before_they_are_scaled() -> None:
    def work(torch: Any) -> Any:
        query, key = torch.full((1, 2, 1500, 16), 10.0), torch.full((1, 2, 3, 16), 50.0)
        query[0, 1, 1400] = -20.0
        return torch.nn.functional.scaled_dot_product_attention(query, key, value=key, attn_mask=None)

    assert largest_of(work) == pytest.approx(20 * 50 * 16)


def test_a_nan_counts_as_infinite() -> None:
    assert largest_of(lambda torch: torch.zeros(3) / torch.zeros(3)) == math.inf


def test_whole_numbers_do_not_count() -> None:
    assert largest_of(lambda torch: torch.arange(100_000) * 2) == 0


def test_a_norms_deviation_is_that_of_the_values_it_normalises_together() -> None:
    """One layer of each kind over the same numbers; only one row, one channel in it, stands out."""
    import torch

    values = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    values[1, 4] = values[1, 4] * 300 + 1000
    functional = torch.nn.functional
    normal: dict[str, tuple[Callable[[], Any], Any]] = {
        "layers": (lambda: functional.layer_norm(values, (5, 7)), values.flatten(2).std(-1, correction=0)),
        "rows": (lambda: functional.layer_norm(values, (7,)), values.std(-1, correction=0)),
        "squares": (lambda: functional.rms_norm(values, (7,)), values.square().mean(-1).sqrt()),
        "groups": (
            lambda: functional.group_norm(values, 3),
            values.reshape(2, 3, -1).std(-1, correction=0),
        ),
        "channels": (
            lambda: functional.instance_norm(input=values),
            values.flatten(2).std(-1, correction=0),
        ),
    }
    for name, (work, deviations) in normal.items():
        activations = seen(lambda _, work=work: work())
        assert activations.largest_deviation == pytest.approx(float(deviations.max())), name
        assert activations.largest < 10


def test_without_a_norm_nothing_deviates() -> None:
    assert seen(lambda torch: torch.full((3,), 1e6) * torch.arange(3)).largest_deviation == 0


def test_a_nan_in_a_norm_deviates_without_end() -> None:
    def work(torch: Any) -> Any:
        return torch.nn.functional.layer_norm(torch.full((3, 4), math.nan), (4,))

    assert seen(work).largest_deviation == math.inf


def test_what_comes_after_the_block_is_not_seen() -> None:
    import torch

    with ActivationRange() as activations:
        torch.ones(3)
    torch.full((3,), 1e6).abs()
    assert activations.largest == 1

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.torch


def largest_of(work: Callable[[Any], Any]) -> float:
    import torch

    from conversions.verification.activation_range import ActivationRange

    with torch.inference_mode(), ActivationRange() as activations:
        work(torch)
    return activations.largest


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

"""Compare two tensors: PSNR, largest error, cosine similarity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """Agreement of a tensor with its reference.

    Attributes:
        psnr_db: Peak signal-to-noise ratio, the reference's own range as the peak; infinite when equal,
            minus infinite when the tensor is not finite. For booleans: infinite or minus infinite.
        max_abs_error: Largest difference.
        cosine: Cosine similarity.
        finite: Whether no element is NaN or infinite.
    """

    psnr_db: float
    max_abs_error: float
    cosine: float
    finite: bool


def compare(found: npt.NDArray[np.generic], reference: npt.NDArray[np.generic]) -> Closeness:
    """Compare a tensor with its reference.

    Source: PSNR = 10 log10(range^2 / mean squared error), as in the parity checks of ml-stable-diffusion,
    with the range (max - min) of the reference as the peak.

    Raises:
        ValueError: The shapes differ.
    """
    if found.shape != reference.shape:
        raise ValueError(f"shapes differ: {found.shape} and {reference.shape}")
    a, b = (each.astype(np.float64).ravel() for each in (found, reference))
    finite = bool(np.isfinite(a).all())
    if reference.dtype == np.bool_:
        same = bool((a == b).all())
        return Closeness(
            psnr_db=math.inf if same else -math.inf,
            max_abs_error=float(not same),
            cosine=float(same),
            finite=finite,
        )
    if not finite:
        return Closeness(psnr_db=-math.inf, max_abs_error=math.inf, cosine=0.0, finite=False)
    error = a - b
    mean_square = float(np.mean(error * error))
    peak = float(b.max() - b.min()) or float(abs(b).max()) or 1.0
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Closeness(
        psnr_db=math.inf if mean_square == 0 else 10 * math.log10(peak * peak / mean_square),
        max_abs_error=float(np.abs(error).max()),
        cosine=float(a @ b) / lengths if lengths else float(mean_square == 0),
        finite=True,
    )

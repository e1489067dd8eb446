"""What the caller of a conversion may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp16", "fp32"]
Target = Literal["directml", "cuda", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices that shape a package.

    Attributes:
        precision: Element type of weights and activations.
        target: What the package is made for.
        safety_checker: Whether a safety checker that the checkpoint has goes into the package.
        keep_fp32: Submodels that stay in float32 whatever the precision.
    """

    precision: Precision = "fp16"
    target: Target = "directml"
    safety_checker: bool = True
    keep_fp32: frozenset[str] = frozenset()

    def precision_of(self, submodel: str) -> Precision:
        """Return the precision that one submodel gets."""
        return "fp32" if submodel in self.keep_fp32 else self.precision

"""Options of a conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp16", "fp32"]
Target = Literal["directml", "cuda", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options that change what a package contains.

    Attributes:
        precision: Element type of weights and activations.
        target: Execution provider that the package is made for.
        safety_checker: Whether to convert the checkpoint's safety checker, if it has one.
        scheduler_class: Class of the scheduler that the package names instead of the checkpoint's own.
        keep_fp32: Names of submodels to keep in float32 in an fp16 package.
        copy: Whether the package holds copies of all weights, rather than links to the checkpoint's files.
    """

    precision: Precision = "fp16"
    target: Target = "directml"
    safety_checker: bool = True
    scheduler_class: str = ""
    keep_fp32: frozenset[str] = frozenset()
    copy: bool = False

    def precision_of(self, submodel: str) -> Precision:
        """Return the precision of one submodel."""
        return "fp32" if submodel in self.keep_fp32 else self.precision

"""A family: the submodels of one kind of pipeline."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass

from conversions import families
from conversions.errors import ConversionError
from conversions.graph_kind import GraphKind


@dataclass(frozen=True, kw_only=True)
class Family:
    """The submodels of one kind of pipeline.

    Attributes:
        name: Short name, as in ``manifest.json``.
        pipelines: The ``_class_name`` values of ``model_index.json`` that belong to it.
        submodels: What is made, in the order of work.
        optional: Names of components that a checkpoint may lack.
        copied: Folders of small files that go into the package as they are.
    """

    name: str
    pipelines: tuple[str, ...]
    submodels: tuple[GraphKind, ...]
    optional: frozenset[str] = frozenset()
    copied: tuple[str, ...] = ("scheduler", "tokenizer", "feature_extractor")


def all_families() -> tuple[Family, ...]:
    """Return every family: each file of ``conversions.families`` defines one as ``FAMILY``."""
    return tuple(
        importlib.import_module(f"{families.__name__}.{module.name}").FAMILY
        for module in pkgutil.iter_modules(families.__path__)
    )


def find_family(pipeline: str) -> Family:
    """Find the family of a pipeline class.

    Args:
        pipeline: ``_class_name`` of a ``model_index.json``.

    Raises:
        ConversionError: ``family.unsupported``; names what is supported, and the nearest.
    """
    known = {name: family for family in all_families() for name in family.pipelines}
    if pipeline in known:
        return known[pipeline]
    near = difflib.get_close_matches(pipeline, known, n=1, cutoff=0.0)
    raise ConversionError(
        "family.unsupported",
        f"The checkpoint is a {pipeline}, which cannot be converted yet.",
        f"Supported are {', '.join(sorted(known))}; the nearest is {near[0]}.",
    )

"""Adapters merged into a package's weights when a session is opened; the package stays as it is."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path

from conversions.errors import ConversionError
from conversions.package.layout import Package
from conversions.providers.session_graph import Edit
from conversions.weights.expression import Tensors
from conversions.weights.graph_weights import graph_weights
from conversions.weights.lora.opened import open_all
from conversions.weights.lora.request import AdapterRequest
from conversions.weights.lora.transform import MergeAdapter
from conversions.weights.read_numbers import read_numbers
from sdsetup.error_hints import hint_for
from sdsetup.errors import SetupError
from sdsetup.runtime.sessions import Array, Arrays
from sdsetup.runtime.textual_inversion import PackageEmbeddings, resize

_MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class AppliedAdapter:
    """An adapter that an image is made with.

    Attributes:
        path: Its file.
        weight: What its change is multiplied by.
        sha256: Hash of the file.
    """

    path: str
    weight: float
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PackageAdapters:
    """Adapters matched with a package's weights; holds no weights itself, so a process can be given it.

    Attributes:
        applied: The adapters, in order.
        notices: What of them is left out.
        transforms: What merges them, by the component that is changed.
        paths: Where each adapter's file lies, by the name that its tensors give.
        embeddings: Textual inversion, whose rows the text encoders get.
    """

    applied: tuple[AppliedAdapter, ...] = ()
    notices: tuple[str, ...] = ()
    transforms: Mapping[str, tuple[MergeAdapter, ...]] = field(default_factory=dict, repr=False)
    paths: Mapping[str, Path] = field(default_factory=dict, repr=False)
    embeddings: PackageEmbeddings = field(default_factory=PackageEmbeddings)

    def weights(self, package: Package, submodel: str) -> Arrays:
        """Return all weights of a submodel that differ from the package's, by initializer.

        Raises:
            SetupError: ``lora.not_finite``; see ``merged_weights``.
        """
        extended = self.embeddings.extended_weights(package, submodel)
        return {**self.merged_weights(package, submodel), **extended}

    def edits(self, package: Package, submodel: str, weights: Arrays) -> tuple[Edit, ...]:
        """Return what a submodel's graph needs so that a session takes its weights."""
        component = next(each.component for each in package.submodels if each.name == submodel)
        if component not in self.embeddings.rows:
            return ()
        return (partial(resize, shapes={name: array.shape for name, array in weights.items()}),)

    def merged_weights(self, package: Package, submodel: str) -> Arrays:
        """Merge the adapters into the weights of a submodel that they change.

        Args:
            package: Its files are read.
            submodel: Name of one of its submodels.

        Returns:
            The changed initializers by name, in the graph's types and shapes.

        Raises:
            SetupError: ``lora.not_finite``; a changed weight is NaN or infinite, or leaves float16's range.
        """
        component = next(each.component for each in package.submodels if each.name == submodel)
        transforms = self.transforms.get(component, ())
        if not transforms:
            return {}
        from conversions.weights.not_finite import infinite

        weights = graph_weights(package.graph(submodel))
        before: Tensors = {name: each.expression for name, each in weights.items()}
        after: Tensors = reduce(lambda tensors, transform: transform(tensors), transforms, before)
        folder = package.folder / submodel
        paths = {**self.paths, **{each.tensor.file: folder / each.tensor.file for each in weights.values()}}
        read = read_numbers(paths)

        def merge(name: str) -> Array:
            return weights[name].evaluate(after[name], read)

        changed = [name for name in after if after[name] is not before[name]]
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
            merged = dict(zip(changed, threads.map(merge, changed), strict=True))
        if wrong := next((name for name, values in merged.items() if infinite(values)), None):
            raise SetupError(
                "lora.not_finite",
                f"{wrong} of {submodel} is not finite with {_listed(self.applied)}.",
                "use a smaller weight, or look for another file of the adapter.",
            )
        return merged


def open_adapters(
    package: Package, requests: Sequence[AdapterRequest], *, ignore_unmatched: bool = False
) -> PackageAdapters:
    """Read adapters and match them with a package; only tables of tensors are read.

    Args:
        package: To make images with.
        requests: The adapters, in order.
        ignore_unmatched: Whether keys that belong to nothing in the package are left out.

    Raises:
        SetupError: An adapter cannot be read, or does not fit.
    """
    if not requests:
        return PackageAdapters()
    adapted = {each.component for each in package.family.adapted}
    _demand_plain_weights(package, adapted)
    components: dict[str, Tensors] = {
        submodel.component: {
            name: weight.expression for name, weight in graph_weights(package.graph(submodel.name)).items()
        }
        for submodel in package.submodels
        if submodel.component in adapted
    }
    try:
        opened = open_all(requests, components, package.family, ignore_unmatched=ignore_unmatched)
    except ConversionError as error:
        raise SetupError(error.code, error.message, hint_for(error)) from error
    transforms: dict[str, tuple[MergeAdapter, ...]] = {}
    for adapter in opened:
        for component, transform in adapter.transforms.items():
            transforms[component] = (*transforms.get(component, ()), transform)
    return PackageAdapters(
        applied=tuple(
            AppliedAdapter(
                path=str(each.request.path.absolute()), weight=each.request.weight, sha256=each.sha256
            )
            for each in opened
        ),
        notices=tuple(each.notice for each in opened if each.notice),
        transforms=transforms,
        paths={each.file: each.request.path.absolute() for each in opened},
    )


def _demand_plain_weights(package: Package, components: Collection[str]) -> None:
    """Check that the weights to change are numbers as they are, not quantised ones."""
    for submodel in package.submodels:
        precision = package.precision(submodel.name)
        if submodel.component in components and precision not in ("fp16", "fp32"):
            raise SetupError(
                "lora.quantized",
                f"{submodel.name} of {package.folder} keeps its weights in {precision}, which nothing can be "
                "added to.",
                f"merge it at conversion: sdsetup convert MODEL --precision {precision} --lora FILE.",
            )


def _listed(applied: Sequence[AppliedAdapter]) -> str:
    return " and ".join(f"{each.path} (weight {each.weight:g})" for each in applied)

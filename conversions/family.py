"""A family: what is particular to one kind of pipeline, for conversion and for images."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from conversions import families
from conversions.errors import ConversionError
from conversions.graph_kind import Config, GraphKind
from conversions.typed_config import read_config
from conversions.weights.lora.module_names import AdaptedComponent

if TYPE_CHECKING:
    from conversions.recipe import Recipe
    from conversions.single_file_layout import SingleFileLayout

ONNX_CLASS = "OnnxRuntimeModel"
"""The class that a package's ``model_index.json`` gives to each submodel."""

Role = Literal["text", "denoiser", "encoder", "decoder", "safety"]
"""What a submodel does when an image is made."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A submodel that a family's packages have.

    Attributes:
        name: Its folder in a package.
        component: The checkpoint's component that it is made from.
        kinds: The graphs it may be, one for each component class that is supported.
        role: What it does.
        optional: Whether a checkpoint may lack it.
        called: What else a caller may call it who leaves it out, such as ``"t5"``; empty for nothing.
        tokenizer: Folder of the tokenizer that no other part reads, which goes when the part goes; empty for
            none.
    """

    name: str
    component: str
    kinds: tuple[GraphKind, ...]
    role: Role
    optional: bool = False
    called: str = ""
    tokenizer: str = ""


@dataclass(frozen=True, kw_only=True)
class Submodel:
    """A part whose component class is known.

    Attributes:
        name: Its folder in a package.
        component: The checkpoint's component that it is made from.
        kind: How its graph is made.
        role: What it does.
    """

    name: str
    component: str
    kind: GraphKind
    role: Role


@dataclass(frozen=True, kw_only=True)
class PipelineConfigs:
    """The small files of a checkpoint or a package that decide how images are made.

    Attributes:
        index: ``model_index.json``.
        components: Each component's ``config.json``, by the component's name.
        scheduler: ``scheduler_config.json``; empty where there is none.
    """

    index: Config
    components: Mapping[str, Config]
    scheduler: Config


@dataclass(frozen=True, kw_only=True)
class ShippedGraph:
    """A configuration whose graph ships with the program: what people really convert.

    Attributes:
        label: The model's name, for people.
        kind: How the graph is made.
        config: The component's ``config.json``, without fields that have their default.
    """

    label: str
    kind: GraphKind
    config: Config


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is particular to one kind of pipeline.

    Attributes:
        name: Short name, as in ``manifest.json``.
        title: Name for people.
        pipelines: The ``_class_name`` values of ``model_index.json`` that belong to it.
        parts: The submodels, in the order of work.
        metadata: Folders of small files that go into the package as they are.
        tokenizers: Folders of the tokenizers; one that a checkpoint's index declares absent is not needed.
        recipe: Makes the recipe for images from a pipeline's configurations.
        matches: Tells families of one pipeline class apart; None for the one that takes all others.
        single_file: How its single files are laid out; None where they cannot be read.
        shipped: Configurations whose graphs ship with the program.
        adapted: The components that adapters such as LoRA may change.
    """

    name: str
    title: str
    pipelines: tuple[str, ...]
    parts: tuple[Part, ...]
    metadata: tuple[str, ...]
    tokenizers: tuple[str, ...]
    recipe: Callable[[PipelineConfigs], Recipe]
    matches: Callable[[PipelineConfigs], bool] | None = None
    single_file: SingleFileLayout | None = None
    shipped: tuple[ShippedGraph, ...] = ()
    adapted: tuple[AdaptedComponent, ...] = ()

    @property
    def components(self) -> tuple[str, ...]:
        """The components that its submodels are made from, in the order of work."""
        return tuple(dict.fromkeys(part.component for part in self.parts))

    def optional(self, component: str) -> bool:
        """Whether a checkpoint may lack a component."""
        return all(part.optional for part in self.parts if part.component == component)

    def called(self, component: str) -> str:
        """Return what a caller leaves an optional component out by; empty for one that is needed."""
        if not self.optional(component):
            return ""
        return next(
            (part.called for part in self.parts if part.component == component and part.called), component
        )

    def left_out(self, names: Collection[str]) -> frozenset[str]:
        """Return the folders that nobody needs once some parts are left out: theirs and their tokenizers'.

        Args:
            names: Components, or what else they are called.
        """
        parts = [part for part in self.parts if {part.component, part.called} & (set(names) - {""})]
        return frozenset(folder for part in parts for folder in (part.component, part.tokenizer) if folder)

    def submodels(self, configs: PipelineConfigs) -> tuple[Submodel, ...]:
        """Return the submodels of a pipeline, with the kind that each component's class asks for.

        Args:
            configs: Its components decide which parts there are.

        Raises:
            ConversionError: ``component.unsupported``; names the class and what is supported.
        """
        return tuple(
            Submodel(
                name=part.name,
                component=part.component,
                kind=_kind(part, configs),
                role=part.role,
            )
            for part in self.parts
            if part.component in configs.components
        )

    def typed(self, configs: PipelineConfigs, place: str) -> PipelineConfigs:
        """Return a pipeline's configurations with each field of its components of the type it must have.

        Args:
            configs: As they were read.
            place: Where they come from, for messages.

        Raises:
            ConversionError: ``config.invalid``; names the component, the field, the value and what it must
                be. ``component.unsupported``.
        """
        components = dict(configs.components)
        for submodel in self.submodels(configs):
            name = submodel.component
            components[name] = read_config(
                submodel.kind.fields, components[name], f"{place}/{name}/config.json"
            )
        return replace(configs, components=components)


def all_families() -> tuple[Family, ...]:
    """Return every family: each file of ``conversions.families`` defines one as ``FAMILY``."""
    return tuple(
        importlib.import_module(f"{families.__name__}.{module.name}").FAMILY
        for module in pkgutil.iter_modules(families.__path__)
        if not module.ispkg
    )


def families_of(pipeline: str) -> tuple[Family, ...]:
    """Return the families that a pipeline class may belong to.

    Args:
        pipeline: ``_class_name`` of a ``model_index.json``.

    Raises:
        ConversionError: ``family.unsupported``; names what is supported, and the nearest.
    """
    found = tuple(family for family in all_families() if pipeline in family.pipelines)
    if found:
        return found
    known = sorted({name for family in all_families() for name in family.pipelines})
    near = difflib.get_close_matches(pipeline, known, n=1, cutoff=0.0)
    raise ConversionError(
        "family.unsupported",
        f"The checkpoint is a {pipeline}, which cannot be converted yet.",
        f"Supported are {', '.join(known)}; the nearest is {near[0]}.",
    )


def find_family(configs: PipelineConfigs) -> Family:
    """Return the family of a pipeline: by its class, then by its configurations.

    Raises:
        ConversionError: ``family.unsupported``.
    """
    candidates = families_of(str(configs.index.get("_class_name", "pipeline without a name")))
    fits = [family for family in candidates if family.matches is not None and family.matches(configs)]
    others = [family for family in candidates if family.matches is None]
    return [*fits, *others, *candidates][0]


def folders_left_out(pipeline: str, names: Collection[str]) -> frozenset[str]:
    """Return the folders of a checkpoint that nobody needs once some parts are left out.

    Args:
        pipeline: ``_class_name`` of its ``model_index.json``; one of no family has just the named ones.
        names: Components, or what else the family calls them.
    """
    families_with = [family for family in all_families() if pipeline in family.pipelines]
    return frozenset(names).union(*(family.left_out(names) for family in families_with))


def family_named(name: str) -> Family:
    """Return a family by its name in ``manifest.json``.

    Raises:
        ConversionError: ``family.unsupported``.
    """
    for family in all_families():
        if family.name == name:
            return family
    known = ", ".join(family.name for family in all_families())
    raise ConversionError("family.unsupported", f"There is no family {name!r}.", f"Families are {known}.")


def load_component_classes() -> None:
    """Import the classes of diffusers and transformers that the families' components are.

    The two libraries load classes when they are first asked for, so importing them alone proves little.
    """
    for family in all_families():
        for part in family.parts:
            for kind in part.kinds:
                kind.component_class()


def class_of_component(configs: PipelineConfigs, component: str) -> str:
    """Return the class that a component says it has; empty where nothing says.

    Source: diffusers writes ``_class_name``, transformers ``architectures``; ``model_index.json`` has both.
    A package's index names ONNX classes there, which say nothing of the component.
    """
    config = configs.components[component]
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    entry: Any = configs.index.get(component)
    listed = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    if listed == ONNX_CLASS:
        listed = None
    return str(listed or config.get("_class_name") or first or "")


def _kind(part: Part, configs: PipelineConfigs) -> GraphKind:
    found = class_of_component(configs, part.component)
    if not found:
        return part.kinds[0]
    for kind in part.kinds:
        if found == kind.class_name or found in kind.also:
            return kind
    raise ConversionError(
        "component.unsupported",
        f"The component {part.component!r} is a {found}, which this pipeline cannot be converted with.",
        f"Supported is {' or '.join(kind.class_name for kind in part.kinds)}.",
    )

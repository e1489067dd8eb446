"""A checkpoint in the diffusers layout: its pipeline, its components and where their tensors lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from conversions.checkpoint.json_file import read_object
from conversions.checkpoint.lfs_pointer import is_pointer_file, pointer_error
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.scaled_tensors import unscaled
from conversions.checkpoint.storage import Folder, Storage
from conversions.checkpoint.tensor_table import read_tensors
from conversions.checkpoint.weight_files import WeightFiles, choose
from conversions.checkpoint.wrong_path import pipeline_of
from conversions.errors import ConversionError
from conversions.family import (
    Family,
    PipelineConfigs,
    Submodel,
    all_families,
    families_of,
    find_family,
    folders_left_out,
)
from conversions.weights.expression import Tensors, as_expressions

if TYPE_CHECKING:
    from conversions.recipe import Recipe


SCHEDULER_FILE = "scheduler/scheduler_config.json"

Transform: TypeAlias = "Callable[[Tensors], Tensors]"
"""Makes the weights of a component of other tensors: renames, splits, merges adapters. Its ``repr`` tells
exactly what it does, since a conversion is identified by it: make it a frozen dataclass."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One component of a checkpoint.

    Attributes:
        name: Its folder.
        config: Its ``config.json``.
        weights: The files that hold its tensors.
        transforms: What makes the component's weights of the tensors in these files, one after the other;
            none where the files hold them under their own names.
    """

    name: str
    config: Mapping[str, Any]
    weights: WeightFiles
    transforms: tuple[Transform, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights as published.

    Attributes:
        storage: Its files.
        family: What kind of pipeline it is.
        index: Its ``model_index.json``.
        components: The components that submodels are made of, by name.
        submodels: What is made of them, in the order of work.
        scheduler: Its ``scheduler_config.json``; empty where there is none.
        origin: The repository it came from, or the folder's name.
        commit: The repository's commit; empty for a folder.
        notices: What a reader should know of how it was understood.
    """

    storage: Storage
    family: Family
    index: Mapping[str, Any]
    components: Mapping[str, Component]
    submodels: tuple[Submodel, ...]
    scheduler: Mapping[str, Any]
    origin: str
    commit: str = ""
    notices: tuple[str, ...] = ()

    @property
    def configs(self) -> PipelineConfigs:
        """What decides how images are made."""
        return PipelineConfigs(
            index=self.index,
            components={name: component.config for name, component in self.components.items()},
            scheduler=self.scheduler,
        )

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """Folders of the tokenizers of what it has."""
        lacking = {part.tokenizer for part in self.family.parts if part.component not in self.components}
        return tuple(name for name in self.family.tokenizers if name not in lacking)

    @property
    def recipe(self) -> Recipe:
        """How images are made with it."""
        return self.family.recipe(self.configs)

    def config_of(self, submodel: Submodel) -> Mapping[str, Any]:
        """Return the configuration of the component that a submodel is made from."""
        return self.components[submodel.component].config


def open_folder(
    path: Path,
    *,
    origin: str = "",
    commit: str = "",
    variant: str = "",
    without: Collection[str] = (),
) -> Checkpoint:
    """Open a checkpoint in a folder.

    Args:
        path: The folder with ``model_index.json``.
        origin: The repository it came from; the folder's name when empty.
        commit: The repository's commit.
        variant: The weight precision to prefer where the checkpoint has several.
        without: Optional components to leave out, whether they are there or not; also as the family calls
            them, such as ``"t5"``.

    Raises:
        ConversionError: The folder is missing, or is no checkpoint that can be converted.
    """
    if not path.exists():
        raise ConversionError(
            "checkpoint.missing",
            f"There is no folder {path}.",
            "Check the spelling; a checkpoint is a folder with a file model_index.json in it.",
        )
    if not path.is_dir():
        raise ConversionError(
            "checkpoint.not_a_folder",
            f"{path} is a file, where a folder is wanted.",
            "Give a folder in the diffusers layout, with a file model_index.json in it.",
        )
    if not (path / "model_index.json").is_file() and (above := pipeline_of(path)) is not None:
        raise ConversionError(
            "checkpoint.is_component",
            f"{path} is one component of the pipeline {above}.",
            f"Give the pipeline's folder: {above}",
        )
    return open_checkpoint(
        Folder(path), origin=origin or path.name, commit=commit, variant=variant, without=without
    )


def open_checkpoint(
    storage: Storage,
    *,
    origin: str,
    commit: str = "",
    variant: str = "",
    without: Collection[str] = (),
) -> Checkpoint:
    """Open a checkpoint wherever its bytes are; reads small files only. See ``open_folder``.

    Raises:
        ConversionError: It is no diffusers pipeline, of an unsupported kind, or lacks parts.
    """
    names = storage.names()
    if "model_index.json" not in names:
        raise ConversionError(
            "checkpoint.not_a_pipeline",
            f"{storage.label} is no diffusers pipeline: it has no model_index.json.",
            _where_instead(names),
        )
    index = _checked_index(
        read_object(storage, "model_index.json"), names, f"{storage.label}/model_index.json"
    )
    pipeline = str(index.get("_class_name", "pipeline without a name"))
    candidates = families_of(pipeline)
    absent = {name for name, entry in index.items() if _is_null(entry)} | folders_left_out(pipeline, without)
    configs = PipelineConfigs(
        index=index,
        components={
            name: read_object(storage, f"{name}/config.json")
            for name in dict.fromkeys(name for family in candidates for name in family.components)
            if name in index and name not in absent and f"{name}/config.json" in names
        },
        scheduler=read_object(storage, SCHEDULER_FILE) if SCHEDULER_FILE in names else {},
    )
    family = find_family(configs)
    demand_optional(family, without)
    components = {
        name: _component(storage, names, name, variant, called=family.called(name))
        for name in family.components
        if not (family.optional(name) and (name in absent or name not in index))
    }
    return assemble(storage, family, index, components, configs.scheduler, origin=origin, commit=commit)


def demand_optional(family: Family, without: Collection[str]) -> None:
    """See that what a caller leaves out by a name of its own is there to be left out, and can be.

    Raises:
        ConversionError: ``component.absent`` or ``component.required``.
    """
    own = {part.called for part in family.parts}
    for name in sorted({part.called for each in all_families() for part in each.parts} - own - {""}):
        if name in without:
            raise ConversionError(
                "component.absent",
                f"{family.title} has no part {name} that could be left out.",
                "Convert it as it is.",
                {"component": name},
            )
    for part in family.parts:
        if part.called in without and not part.optional:
            raise ConversionError(
                "component.required",
                f"{family.title} makes no images without {part.called}.",
                "Convert it with this part.",
                {"component": part.called},
            )


def assemble(
    storage: Storage,
    family: Family,
    index: Mapping[str, Any],
    components: Mapping[str, Component],
    scheduler: Mapping[str, Any],
    *,
    origin: str,
    commit: str = "",
    notices: tuple[str, ...] = (),
) -> Checkpoint:
    """Make a checkpoint of its parts; reads the components' configurations.

    Raises:
        ConversionError: A component's class or a field of its configuration cannot be used.
    """
    configs = family.typed(
        PipelineConfigs(
            index=index,
            components={name: each.config for name, each in components.items()},
            scheduler=scheduler,
        ),
        storage.label,
    )
    components = {name: replace(each, config=configs.components[name]) for name, each in components.items()}
    submodels = family.submodels(configs)
    return Checkpoint(
        storage=storage,
        family=family,
        index=index,
        components=components,
        submodels=submodels,
        scheduler=scheduler,
        origin=origin,
        commit=commit,
        notices=notices,
    )


def _component(storage: Storage, names: Sequence[str], name: str, variant: str, *, called: str) -> Component:
    """Read a component; ``called`` is what an optional one is left out by, and empty for others."""
    if called and f"{name}/config.json" not in names:
        message = f"{storage.label} has no {name}/config.json, although its model_index.json names it."
        raise _optional_missing(called, message)
    if f"{name}/config.json" not in names:
        raise ConversionError(
            "checkpoint.component_missing",
            f"{storage.label} has no {name}/config.json, although its model_index.json "
            f"names the component {name!r}.",
            "Download the checkpoint again; parts of it are missing.",
        )
    return Component(
        name=name,
        config=read_object(storage, f"{name}/config.json"),
        weights=_choose(storage, names, name, variant, called),
    )


def component_tensors(storage: Storage, component: Component) -> Tensors:
    """Return the weights of a component by the names that diffusers and transformers give them.

    Raises:
        ConversionError: A file is damaged, holds pickled data, or does not hold what it should.
    """
    tensors: Tensors = unscaled(as_expressions(stored_tensors(storage, component.weights)))
    for transform in component.transforms:
        tensors = transform(tensors)
    return tensors


def stored_tensors(storage: Storage, weights: WeightFiles) -> dict[str, StoredTensor]:
    """Read where the tensors of a component lie.

    Raises:
        ConversionError: A file is damaged, holds pickled data, or two files hold the same tensor.
    """
    if weights.format == "pickle":
        raise ConversionError(
            "weights.pickle",
            f"The weights {weights.files[0]} are a pickle, a format that can carry programs.",
        )
    found: dict[str, StoredTensor] = {}
    for file in weights.files:
        for name, tensor in read_tensors(storage, file).items():
            if name in found:
                raise ConversionError(
                    "checkpoint.corrupt",
                    f"The tensor {name} is in two files: {found[name].file} and {file}.",
                    "Remove the one that does not belong to the checkpoint.",
                )
            found[name] = tensor
    return found


def _optional_missing(called: str, message: str) -> ConversionError:
    return ConversionError(
        "checkpoint.optional_missing",
        message,
        "Download the checkpoint again, or convert without this part.",
        {"component": called.replace("_", "-")},
    )


def _checked_index(index: dict[str, Any], names: Sequence[str], label: str) -> dict[str, Any]:
    """See that a model_index.json says of each component which class of which library it is.

    Raises:
        ConversionError: ``config.invalid``.
    """
    folders = {name.partition("/")[0] for name in names if "/" in name}
    for name, entry in index.items():
        if name == "_class_name":
            fits, expected = isinstance(entry, str), "a class"
        elif isinstance(entry, list):
            fits, expected = (
                all(isinstance(part, str | None) for part in entry),
                "texts or nulls",
            )
        else:
            fits, expected = entry is None or name not in folders, "a list of library and class"
        if not fits:
            raise ConversionError(
                "config.invalid",
                f"{label} says {name} = {json.dumps(entry)[:60]}; it must be {expected}.",
                "Correct this field, or download the file again.",
            )
    return index


def _choose(storage: Storage, names: Sequence[str], component: str, variant: str, called: str) -> WeightFiles:
    """Choose the weights of a component; git-lfs pointers count only when there is nothing else."""
    pointers = {
        name
        for name in names
        if name.startswith(f"{component}/") and _is_weights(name) and is_pointer_file(storage, name)
    }
    try:
        chosen = choose([name for name in names if name not in pointers], component, variant=variant)
    except ConversionError as error:
        if pointers:
            raise _pointer(storage, pointers) from error
        if called:
            raise _optional_missing(called, error.message) from error
        raise
    # A pickle is worse than the safetensors that git-lfs would bring.
    if chosen.format == "pickle" and any(name.endswith(".safetensors") for name in pointers):
        raise _pointer(storage, pointers)
    return chosen


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _pointer(storage: Storage, pointers: Collection[str]) -> ConversionError:
    name = min(pointers, key=lambda each: (not each.endswith(".safetensors"), each))
    return pointer_error(f"{storage.label}/{name}", storage.read(name))


def _is_null(entry: object) -> bool:
    """Say whether ``model_index.json`` declares a component absent, as ``[null, null]`` or not at all."""
    return not entry or (isinstance(entry, list) and not any(entry))


def _where_instead(names: Any) -> str:
    below = [name for name in names if name.endswith("/model_index.json")]
    if below:
        return f"There is one in its folder {Path(below[0]).parent.as_posix()}: give that folder."
    if "config.json" in names:
        return "It holds one component: give the folder of the whole pipeline, with model_index.json."
    if any(name.endswith((".safetensors", ".ckpt")) and "/" not in name for name in names):
        listed = [name for name in names if name.endswith((".safetensors", ".ckpt")) and "/" not in name]
        return f"It holds single files: give one of them ({', '.join(listed[:4])})."
    return "Give the folder that holds model_index.json."

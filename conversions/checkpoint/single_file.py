"""A checkpoint in one file: which family it is, what it lacks, and where the rest comes from."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from conversions.checkpoint.folder import Checkpoint, Component, assemble, component_tensors, demand_optional
from conversions.checkpoint.json_file import read_object
from conversions.checkpoint.layered import Layered, Place, all_of
from conversions.checkpoint.memory import Memory
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.storage import Folder, Storage
from conversions.checkpoint.tensor_table import read_tensors, read_texts
from conversions.checkpoint.unknown_file import refusal
from conversions.checkpoint.weight_files import WeightFiles, choose
from conversions.checkpoint.wrong_path import pipeline_of
from conversions.errors import ConversionError
from conversions.family import Family, all_families
from conversions.single_file_layout import FileComponent, FileFacts, Select, SingleFileLayout, SmallFiles
from conversions.weights.expression import Tensors, as_expressions

_INDEX, _SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"


def open_file(
    path: Path,
    *,
    base: Checkpoint | None = None,
    autoencoder: Path | None = None,
    prediction_type: str = "",
    without: Collection[str] = (),
    origin: str = "",
    commit: str = "",
) -> Checkpoint:
    """Open a single file.

    Args:
        path: A safetensors or GGUF file.
        base: A checkpoint that gives the configurations, and the components that the file lacks.
        autoencoder: A folder or a file with the autoencoder to use instead of the file's.
        prediction_type: What the denoiser predicts, where the caller knows; empty leaves it to the file.
        without: Optional components to leave out, as for ``open_folder``.
        origin: What to call it; the file's name when empty.
        commit: The repository's commit, where it comes from one.

    Raises:
        ConversionError: It is no checkpoint of a known family, is damaged, or lacks a component.
    """
    if not path.is_file():
        raise ConversionError("checkpoint.missing", f"There is no file {path}.", "Check the spelling.")
    if (pipeline := pipeline_of(path)) is not None:
        raise ConversionError(
            "checkpoint.is_component",
            f"{path} is a file of one component of the pipeline {pipeline}.",
            f"Give the pipeline's folder: {pipeline}",
        )
    return open_file_of(
        Place(storage=Folder(path.parent), name=path.name),
        label=str(path),
        base=base,
        autoencoder=autoencoder,
        prediction_type=prediction_type,
        without=without,
        origin=origin or path.name,
        commit=commit,
    )


def open_file_of(
    place: Place,
    *,
    label: str,
    base: Checkpoint | None = None,
    autoencoder: Path | None = None,
    prediction_type: str = "",
    without: Collection[str] = (),
    origin: str,
    commit: str = "",
) -> Checkpoint:
    """Open a single file wherever it is; see ``open_file``."""
    stored = read_tensors(place.storage, place.name)
    metadata = read_texts(place.storage, place.name)
    file = f"single-file{Path(place.name).suffix.lower()}"
    names = frozenset(stored)
    facts = FileFacts(metadata=metadata, tensors=names, prediction_type=prediction_type)
    family = _family(label, stored, base)
    layout = family.single_file
    assert layout is not None
    demand_optional(family, without)
    left_out = family.left_out(without)
    small = _small_files(label, family, stored, facts, base)
    present = _present(layout, names)
    own = Memory(f"the files that {family.title} has", _written(small))
    places: dict[str, Place] = {} if base is None else all_of(base.storage)
    places |= {file: place}
    places |= all_of(own) if base is None else {}
    components = {}
    inside = {each.name: each for each in layout.components}
    for name in family.components:
        each, config = inside.get(name), small.components.get(name)
        if config is None or name in left_out:
            continue
        if each is not None and name == _autoencoder_of(family) and autoencoder is not None:
            components[name] = _replaced(each, autoencoder, config, places)
        elif each is not None and name in present:
            components[name] = Component(
                name=name,
                config=config,
                weights=WeightFiles(files=(file,), index=None, format="safetensors", variant=""),
                transforms=(Select(prefix=present[name]), each.names(config)),
            )
        elif base is not None and name in base.components:
            components[name] = base.components[name]
    missing = [name for name in small.components if name not in components and name in family.components]
    missing = [name for name in missing if not family.optional(name)]
    if missing:
        raise _lacks(label, family, missing)
    storage = Layered(label, places)
    if base is not None:
        _demand_words(storage, family, components, base)
    notices = [small.notice] if small.notice else []
    ignored = sum(name.startswith(("model_ema.", "ema.")) for name in names)
    if ignored:
        notices.append(f"Averages of training (EMA) are not used: {ignored:,} of the file's tensors.")
    index = dict(small.index)
    replaced = components[_autoencoder_of(family)].config.get("_class_name")
    if autoencoder is not None and replaced:
        index[_autoencoder_of(family)] = ["diffusers", replaced]
    title = metadata.get("modelspec.title", "").strip()
    return assemble(
        storage,
        family,
        index,
        components,
        small.scheduler,
        origin=f"{origin} ({title[:80]})" if title else origin,
        commit=commit,
        notices=tuple(notices),
    )


def _present(layout: SingleFileLayout, names: frozenset[str]) -> dict[str, str]:
    """Return the components that a file has, with their prefixes; only the denoiser may have an empty one."""
    return {
        each.name: prefix
        for each in layout.components
        if (prefix := each.prefix_in(names)) is not None and (prefix or each.name == layout.denoiser)
    }


def _autoencoder_of(family: Family) -> str:
    return next(part.component for part in family.parts if part.role == "decoder")


def _family(label: str, stored: Mapping[str, StoredTensor], base: Checkpoint | None) -> Family:
    """Return the family of a file by its denoiser's tensors; that of the base where there is one."""
    tensors = as_expressions(stored)
    nearest: tuple[int, str, tuple[str, ...]] | None = None
    others: list[str] = []
    for family in all_families():
        layout = family.single_file
        prefix = None if layout is None else layout.component(layout.denoiser).prefix_in(frozenset(stored))
        if layout is None or prefix is None:
            continue
        if base is not None and family.name == base.family.name:
            return family
        different = layout.recognise(Select(prefix=prefix)(tensors))
        if not different and base is None:
            return family
        if not different:
            others.append(family.title)
        if nearest is None or len(different) < nearest[0]:
            nearest = (len(different), family.title, different)
    if others and base is not None:
        raise _other_model(label, f"is {others[0]}", base, f"is {base.family.title}")
    raise refusal(label, stored, None if nearest is None else nearest[1:])


def _other_model(label: str, said: str, base: Checkpoint, of_base: str) -> ConversionError:
    return ConversionError(
        "checkpoint.other_base",
        f"{label} {said}; the base {base.origin} {of_base}.",
        "Give the checkpoint that the file was made from, or another of the same kind.",
    )


def _small_files(
    label: str,
    family: Family,
    stored: Mapping[str, StoredTensor],
    facts: FileFacts,
    base: Checkpoint | None,
) -> SmallFiles:
    layout = family.single_file
    assert layout is not None
    prefix = layout.component(layout.denoiser).prefix_in(facts.tensors) or ""
    tensors = Select(prefix=prefix)(as_expressions(stored))
    if base is not None:
        said = {"prediction_type": facts.prediction_type} if facts.prediction_type else {}
        configs = {name: each.config for name, each in base.components.items()}
        configs[layout.denoiser] = _denoiser_config(label, layout, tensors, base)
        return SmallFiles(
            index=base.index, scheduler={**base.scheduler, **said}, components=configs, others={}
        )
    if layout.small_files is None:
        have = _present(layout, facts.tensors)
        raise _lacks(
            label, family, [name for name in (*family.components, *family.tokenizers) if name not in have]
        )
    return layout.small_files(tensors, facts)


def _denoiser_config(
    label: str, layout: SingleFileLayout, tensors: Tensors, base: Checkpoint
) -> dict[str, object]:
    """Return the base's configuration with what the file's tensors show.

    Raises:
        ConversionError: ``checkpoint.other_base``.
    """
    of_base = base.components[layout.denoiser].config
    shown = layout.structure(tensors, of_base)
    kind = next(each.kind for each in base.submodels if each.component == layout.denoiser)
    for field in layout.fixed:
        other = of_base.get(field, kind.defaults.get(field))
        if field in shown and shown[field] != other:
            raise _other_model(label, f"has {field} {shown[field]}", base, f"has {other}")
    return {**of_base, **shown}


def _demand_words(
    storage: Storage, family: Family, components: Mapping[str, Component], base: Checkpoint
) -> None:
    """See that the file's own text encoders know all words that the base's tokenizers give.

    Raises:
        ConversionError: ``checkpoint.other_base``.
    """
    for each in family.adapted:
        component, of_base = components.get(each.component), base.components.get(each.component)
        words = None if of_base is None else of_base.config.get("vocab_size")
        if not each.tokenizer or component is None or component is of_base or not isinstance(words, int):
            continue
        tensors = component_tensors(storage, component)
        table = next((tensor for name, tensor in tensors.items() if name.endswith(each.embedding)), None)
        if table is not None and table.shape[0] < words:
            raise ConversionError(
                "checkpoint.other_base",
                f"{storage.label} has its own {each.component!r}, with {table.shape[0]:,} tokens; the base "
                f"{base.origin} has {words:,}, some of them learned.",
                "Take a base that has learned no tokens, and let the result learn them.",
            )


def _written(small: SmallFiles) -> dict[str, bytes]:
    files = {_INDEX: small.index, _SCHEDULER: small.scheduler}
    files |= {f"{name}/config.json": config for name, config in small.components.items()}
    return {name: json.dumps(dict(each), indent=2).encode() for name, each in files.items()} | dict(
        small.others
    )


def _replaced(
    each: FileComponent, given: Path, config: Mapping[str, object], places: dict[str, Place]
) -> Component:
    """Take a component from a folder of diffusers, from a pipeline's folder, or from a file of its own."""
    if given.is_dir():
        folder = Folder(given)
        inner = f"{each.name}/" if (given / each.name / "config.json").is_file() else ""
        weights = choose(folder.names(), inner.rstrip("/"))
        if weights.format == "pickle":
            raise ConversionError(
                "weights.pickle",
                f"The weights {given / weights.files[0]} are a pickle, a format that can carry programs.",
            )
        config = read_object(folder, f"{inner}config.json")
        storage, files, transforms = folder, weights.files, ()
        names = [f"replaced-{each.name}/{name.rpartition('/')[2]}" for name in files]
        places |= {new: Place(storage=storage, name=old) for new, old in zip(names, files, strict=True)}
        return Component(
            name=each.name,
            config=config,
            weights=WeightFiles(files=tuple(names), index=None, format="safetensors", variant=""),
            transforms=transforms,
        )
    if not given.is_file():
        raise ConversionError(
            "checkpoint.missing", f"There is no file or folder {given}.", "Check the spelling."
        )
    storage = Folder(given.parent)
    stored = frozenset(read_tensors(storage, given.name))
    prefix = each.prefix_in(stored)
    if prefix is None:
        raise ConversionError(
            "checkpoint.component_missing",
            f"{given} does not hold the component {each.name!r}.",
            "Give a file or a folder that holds it.",
        )
    name = f"replaced-{each.name}{given.suffix.lower()}"
    places[name] = Place(storage=storage, name=given.name)
    original = not any(".resnets." in tensor for tensor in stored)
    return Component(
        name=each.name,
        config=dict(config),
        weights=WeightFiles(files=(name,), index=None, format="safetensors", variant=""),
        transforms=(Select(prefix=prefix), *((each.names(config),) if original else ())),
    )


def _lacks(label: str, family: Family, missing: list[str]) -> ConversionError:
    only_autoencoder = missing == [_autoencoder_of(family)]
    return ConversionError(
        "checkpoint.component_missing",
        f"{label} is {family.title}, but lacks {', '.join(missing)}.",
        "Give the autoencoder, or a checkpoint of the same family to take it from."
        if only_autoencoder
        else "Give a checkpoint of the same family to take the rest from.",
    )

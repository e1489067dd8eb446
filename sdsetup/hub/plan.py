"""Plan which files of a model to download for a conversion."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversions.checkpoint import weight_files
from conversions.checkpoint.json_file import read_object_file
from conversions.errors import ConversionError
from conversions.events import Event, Listener, Notice, ignore
from conversions.family import folders_left_out
from sdsetup.bootstrap.command_name import quoted
from sdsetup.error_hints import hint_for
from sdsetup.errors import SetupError
from sdsetup.hub import cache
from sdsetup.hub.access import page
from sdsetup.hub.download import fetch
from sdsetup.hub.model_ref import HubModel, RemoteFile

_INDEX = "model_index.json"
# Folders of a diffusers checkpoint that hold no weights.
_WITHOUT_WEIGHTS = ("scheduler", "tokenizer", "feature_extractor", "image_processor")
_SETTINGS = (".json", ".txt", ".model")
# Tokenizer tables, a few MiB, are the largest files other than weights.
_SHOWN = 6
_LARGEST_SETTING_BYTES = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class DownloadPlan:
    """The files of a model that a conversion needs.

    Attributes:
        model: The repository at its commit.
        files: Needed files, in the order of the components.
        cached: Names of files that are downloaded already.
        weights: The chosen weights of each component.
        local_dir: Folder to download to; None downloads into the cache.
    """

    model: HubModel
    files: tuple[RemoteFile, ...]
    cached: frozenset[str]
    weights: Mapping[str, weight_files.WeightFiles]
    local_dir: Path | None = None

    @property
    def total_bytes(self) -> int:
        """Size of all needed files."""
        return sum(file.size_bytes or 0 for file in self.files)

    @property
    def download_bytes(self) -> int:
        """Size of the files yet to be downloaded."""
        return sum(file.size_bytes or 0 for file in self.files if file.name not in self.cached)

    @property
    def pickles(self) -> tuple[str, ...]:
        """Weight files in pickle format, which can run code when loaded naively."""
        return tuple(
            name for chosen in self.weights.values() if chosen.format == "pickle" for name in chosen.files
        )


def plan(
    model: HubModel,
    *,
    variant: str = "",
    without: Collection[str] = (),
    allow_pickle: bool = False,
    local_dir: Path | None = None,
    listener: Listener = ignore,
) -> DownloadPlan:
    """Select the files of ``model`` that a conversion needs.

    Only ``model_index.json`` is downloaded for this, a few hundred bytes, unless it is cached.

    Args:
        model: From ``resolve``.
        variant: Precision of the weights to prefer, for example ``"fp16"``.
        without: Components to leave out, for example ``{"safety_checker"}``, or what else their family calls
            them, such as ``"t5"``.
        allow_pickle: Accept components whose weights are only pickles.
        local_dir: Folder to download to; None downloads into the cache.
        listener: Receives progress events.

    Raises:
        SetupError: ``hub.not-diffusers``, ``hub.no-weights``, ``hub.pickle-only``, ``hub.not-in-cache``, or
            one of ``hub.access.translate_errors``.
    """
    index = _index(model, listener)
    left_out = folders_left_out(str(index.get("_class_name")), without)
    components = [name for name in _components(index) if name not in left_out]
    names = [file.name for file in model.files]
    chosen: dict[str, weight_files.WeightFiles] = {}
    wanted = [_INDEX]
    for component in components:
        wanted += [file.name for file in model.files if _is_setting(file, component)]
        if component in _WITHOUT_WEIGHTS or component.startswith("tokenizer"):
            continue
        chosen[component] = _weights(model, names, component, variant)
        wanted += chosen[component].names
    files = tuple(file for name in dict.fromkeys(wanted) if (file := model.file(name)) is not None)
    result = DownloadPlan(
        model=model,
        files=files,
        cached=frozenset(file.name for file in files if cache.slot(model, file, local_dir).is_filled(file)),
        weights=chosen,
        local_dir=local_dir,
    )
    if result.pickles and not allow_pickle:
        raise SetupError(
            "hub.pickle-only",
            f"{model.repo_id} has these weights only as pickles, which can carry programs: "
            f"{', '.join(result.pickles)}.",
            "Take a model with .safetensors, or add --allow-pickle: they are then read as data alone.",
        )
    return result


def _components(index: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
    ]


def _index(model: HubModel, listener: Listener) -> dict[str, Any]:
    index = model.file(_INDEX)
    if index is None:
        if not model.online:
            raise _not_in_cache(model, _INDEX)
        if files := [each.name for each in model.files if each.name.endswith((".safetensors", ".ckpt"))]:
            first = f"{page(model.repo_id)}/blob/{model.revision}/{files[0]}"
            raise SetupError(
                "hub.single-files",
                f"{model.repo_id} has no {_INDEX}, but single files: {', '.join(files[:_SHOWN])}"
                f"{f' and {len(files) - _SHOWN} more' if len(files) > _SHOWN else ''}.",
                f"Take one of them: sdsetup convert {quoted(first)}",
            )
        raise SetupError(
            "hub.not-diffusers",
            f"{model.repo_id} is no diffusers checkpoint: it has no {_INDEX}.",
            f"One made for diffusers has a folder for each of its parts; look at {page(model.repo_id)}",
        )

    def notices_only(event: Event) -> None:
        if isinstance(event, Notice):
            listener(event)

    fetch(model, (index,), listener=notices_only)
    try:
        return read_object_file(cache.slot(model, index).pointer)
    except ConversionError as error:
        raise SetupError(
            "hub.not-diffusers",
            f"The {_INDEX} of {model.repo_id} cannot be read: {error.message}",
            page(model.repo_id),
        ) from error


def _is_setting(file: RemoteFile, component: str) -> bool:
    folder, _, name = file.name.rpartition("/")
    return (
        folder == component
        and name.endswith(_SETTINGS)
        and ".index." not in name
        and (file.size_bytes or 0) <= _LARGEST_SETTING_BYTES
    )


def _weights(
    model: HubModel, names: Collection[str], component: str, variant: str
) -> weight_files.WeightFiles:
    try:
        return weight_files.choose(names, component, variant=variant)
    except ConversionError as error:
        if not model.online:
            raise _not_in_cache(model, f"the weights of {component}") from error
        raise SetupError("hub.no-weights", f"{model.repo_id}: {error.message}", hint_for(error)) from error


def _not_in_cache(model: HubModel, what: str) -> SetupError:
    return SetupError(
        "hub.not-in-cache",
        f"The Hub cannot be reached, and the cache lacks {what} of {model.repo_id} at {model.commit[:8]}.",
        f"When there is a network: sdsetup download {model.repo_id}",
    )

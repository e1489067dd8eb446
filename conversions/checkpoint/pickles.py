"""Weights that are pickles, rewritten as safetensors by a reader that runs no program in them."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conversions.checkpoint.folder import Checkpoint, open_folder
from conversions.checkpoint.json_file import read_object_file
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError
from conversions.events import Finished, Listener, Started
from conversions.isolated_process import isolated_process

# Of a pickle, and of the zip that torch has them in since 1.6.
_BEGINNINGS = (b"\x80", b"PK")
# What a pickle may unpack to, for each of its bytes and beside them: two names of a tensor are written twice.
_MOST_UNPACKED_FACTOR = 2
_MOST_UNPACKED_BYTES = 64 << 20
# transformers calls the same weights by another stem in each format; diffusers does not.
_STEMS = {"pytorch_model": "model"}


def holds_pickles(checkpoint: Checkpoint) -> bool:
    """Say whether some of the weights that would be read are pickles."""
    return any(part.weights.format == "pickle" for part in checkpoint.components.values())


def without_pickles(checkpoint: Checkpoint, target: Path, *, variant: str, listener: Listener) -> Checkpoint:
    """Make a checkpoint in ``target`` that has the same weights, all as safetensors.

    Files that are no pickles are linked where the disk can do it, else copied. A target that an earlier run
    has finished is taken as it is.

    Args:
        checkpoint: In a folder.
        target: Folder to make.
        variant: As the checkpoint was opened with.
        listener: Told of the progress.

    Raises:
        ConversionError: ``weights.unsafe_pickle`` when a file holds more than tensors.
    """
    assert isinstance(checkpoint.storage, Folder)
    source = checkpoint.storage.path
    if not target.is_dir():
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        pickled = {
            name
            for part in checkpoint.components.values()
            if part.weights.format == "pickle"
            for name in part.weights.names
        }
        _demand_torch(min(pickled))
        for name in checkpoint.storage.names():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            if name not in pickled:
                if not name.endswith(".safetensors"):
                    checkpoint.storage.demand_own(name)
                _link(source / name, partial / name)
        with isolated_process("reading pickles") as process:
            for name in sorted(pickled):
                listener(Started(task=name, label=f"{name}: rewriting as safetensors"))
                write = _write_index if name.endswith(".json") else _write_tensors
                process.call(write, source / name, partial / _renamed(name))
                listener(Finished(task=name))
        partial.rename(target)
    return open_folder(
        target,
        origin=checkpoint.origin,
        commit=checkpoint.commit,
        variant=variant,
        without=set(checkpoint.family.components) - set(checkpoint.components),
    )


def rewrite_file(source: Path, target: Path, *, listener: Listener) -> Path:
    """Rewrite one pickle as safetensors; a target that an earlier run has finished is taken as it is.

    Args:
        source: The pickle.
        target: The file to write.
        listener: Told of the progress.

    Raises:
        ConversionError: ``weights.unsafe_pickle`` when the file holds more than tensors.
    """
    return _rewritten(_write_tensors, source, target, listener)


def rewrite_embedding(source: Path, target: Path, *, listener: Listener) -> Path:
    """Rewrite a pickled textual inversion as safetensors, its token as the only key; see ``rewrite_file``.

    Source: the web interface of AUTOMATIC1111 (``string_to_param`` and ``name``), and diffusers
    (the token as the only key); ``load_textual_inversion_state_dicts`` of diffusers 0.42 reads both.

    Raises:
        ConversionError: ``weights.unsafe_pickle`` when the file holds more than plain data.
    """
    return _rewritten(_write_embedding, source, target, listener)


def _demand_torch(name: str) -> None:
    """Refuse pickles where the only reader that runs no program in them is not installed.

    Raises:
        ConversionError: ``weights.needs_pytorch``.
    """
    if find_spec("torch") is None:
        raise ConversionError(
            "weights.needs_pytorch", f"Reading {name}, a pickle, needs PyTorch, which is not installed."
        )


def _rewritten(write: Callable[[Path, Path], None], source: Path, target: Path, listener: Listener) -> Path:
    if not target.is_file():
        _demand_torch(source.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        listener(Started(task=source.name, label=f"{source.name}: rewriting as safetensors"))
        with isolated_process("reading pickles") as process:
            process.call(write, source, partial)
        listener(Finished(task=source.name))
        partial.replace(target)
    return target


def _write_embedding(source: Path, target: Path) -> None:
    """Runs in a process of its own, as ``_write_tensors``."""
    import torch
    from safetensors.torch import save_file

    content = _loaded(source)
    if isinstance(content, Mapping) and isinstance(content.get("string_to_param"), Mapping):
        tensors = dict(content["string_to_param"])
        named = content.get("name")
        if len(tensors) == 1 and isinstance(named, str) and named:
            tensors = {named: next(iter(tensors.values()))}
    else:
        tensors = dict(content) if isinstance(content, Mapping) else {}
    if not tensors or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors.items()
    ):
        raise ConversionError(
            "weights.unsafe_pickle",
            f"{source.name} is no textual inversion of a known form.",
            "Do not use this file; look for the embedding as safetensors.",
        )
    _demand_size(source, (value.nbytes for value in tensors.values()))
    plain = {name: value.detach().float().clone().contiguous() for name, value in tensors.items()}
    save_file(plain, target, metadata={"format": "pt"})


def _loaded(source: Path) -> Any:
    """Load a pickle with torch's reader that makes nothing but plain data.

    Raises:
        ConversionError: ``weights.unsafe_pickle`` where it refuses something, or unpacks to far more than it
            holds; ``weights.damaged_pickle``.
    """
    import pickle

    import torch

    try:
        if zipfile.is_zipfile(source):  # PyTorch writes no compressed ones; it would unpack them into memory
            with zipfile.ZipFile(source) as packed:
                _demand_size(source, (entry.file_size for entry in packed.infolist()))
        return torch.load(source, map_location="cpu", weights_only=True)
    except (MemoryError, ConversionError):
        raise
    except Exception as error:  # what a damaged file meets in there is of any class
        with source.open("rb") as file:
            is_pickle = file.read(2).startswith(_BEGINNINGS)
        if is_pickle and isinstance(error, pickle.UnpicklingError):
            raise ConversionError(
                "weights.unsafe_pickle",
                f"{source.name} holds more than tensors, such as programs; nothing of it was run.",
                "Do not use this file; look for it as safetensors.",
            ) from error
        raise ConversionError(
            "weights.damaged_pickle",
            f"{source.name} is damaged, or no file of PyTorch.",
            "Download the file again, or look for it as safetensors.",
        ) from error


def _demand_size(source: Path, sizes_bytes: Iterable[int]) -> None:
    """Refuse what a small file would become in memory and on the disk.

    Raises:
        ConversionError: ``weights.unsafe_pickle``.
    """
    most = _MOST_UNPACKED_FACTOR * source.stat().st_size + _MOST_UNPACKED_BYTES
    if (unpacked := sum(sizes_bytes)) > most:
        raise ConversionError(
            "weights.unsafe_pickle",
            f"{source.name} would unpack to {unpacked:,} bytes, far more than it holds.",
            "Do not use this file; look for it as safetensors.",
        )


def _write_tensors(source: Path, target: Path) -> None:
    """Runs in a process of its own, which alone pays torch's memory."""
    import torch
    from safetensors.torch import save_file

    content = _loaded(source)
    tensors = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ConversionError(
            "weights.unsafe_pickle",
            f"{source.name} is no table of tensors.",
            "Do not use this file; look for the model as safetensors.",
        )
    _demand_size(source, (value.nbytes for value in tensors.values()))
    apart_from_others = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        # safetensors knows no views: two names of one memory become two tensors, and all lie in plain order.
        shared = tensor.untyped_storage().data_ptr() in seen
        seen.add(tensor.untyped_storage().data_ptr())
        apart_from_others[name] = (
            tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
        )
    save_file(apart_from_others, target, metadata={"format": "pt"})
    # The conversion tells files apart by size and time: a second run must find the same ones.
    stamp = source.stat().st_mtime_ns
    os.utime(target, ns=(stamp, stamp))


def _write_index(source: Path, target: Path) -> None:
    index = read_object_file(source)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ConversionError(
            "checkpoint.corrupt",
            f"{source} does not say in which file each tensor is.",
            "Download or copy this file again.",
        )
    index["weight_map"] = {name: _renamed(file) for name, file in places.items()}
    target.write_text(json.dumps(index), "utf-8")


def _renamed(name: str) -> str:
    folder, _, file = name.rpartition("/")
    stem, _, rest = file.replace(".bin", ".safetensors").partition(".")
    base, dash, shard = stem.partition("-")
    renamed = f"{_STEMS.get(base, base)}{dash}{shard}.{rest}"
    return f"{folder}/{renamed}" if folder else renamed


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)

"""Find the files of LoRAs and embeddings: on this machine, or on the Hub, by repository or address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conversions.events import Listener
from sdsetup import hub, single_file_source
from sdsetup.errors import SetupError

if TYPE_CHECKING:
    from conversions.weights.lora.request import AdapterRequest

_DATA, _PICKLES = (".safetensors",), (".pt", ".pth", ".bin", ".ckpt")
_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+(@[^:\s]+)?)(:(?P<file>[^:]+))?")
_WEIGHT = re.compile(r"(?P<place>.+):(?P<weight>[+-]?[\d.]+(e[+-]?\d+)?)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FileInRepository:
    """A file of a repository, or the only one that it has.

    Attributes:
        repo: ``owner/name``, with ``@revision`` where one is given.
        file: Path inside the repository; empty for the only one.
    """

    repo: str
    file: str


def in_repository(text: str) -> FileInRepository | None:
    """Return what ``owner/name`` or ``owner/name:file`` names; None for what is a file's name or an address.

    A path that is there wins over a repository, and a name with a file's ending is a path.
    """
    found = _REPOSITORY.fullmatch(text)
    if found is None or Path(text).expanduser().exists():
        return None
    if not found["file"] and Path(text).suffix.casefold() in (*_DATA, *_PICKLES, ".gguf"):
        return None
    return FileInRepository(repo=found["repo"], file=found["file"] or "")


def adapters_at(texts: Sequence[str], listener: Listener) -> tuple[AdapterRequest, ...]:
    """Read the values of ``--lora``: a file, a repository or an address, each with an optional weight.

    Raises:
        SetupError: A file cannot be had, or a repository has several.
        ConversionError: ``lora.weight``; a weight is no number.
    """
    return tuple(_adapter_at(text, listener) for text in texts)


def _adapter_at(text: str, listener: Listener) -> AdapterRequest:
    from conversions.weights.lora.request import AdapterRequest, parse_request, parse_weight

    if Path(text).expanduser().is_file():
        return AdapterRequest(path=Path(text).expanduser())
    weighed = _WEIGHT.fullmatch(text)
    place = text if weighed is None else weighed["place"]
    if _is_remote(place):
        weight = 1.0 if weighed is None else parse_weight(place, weighed["weight"])
        return AdapterRequest(path=file_at(place, "--lora", (*_DATA,), listener), weight=weight)
    return parse_request(text)


def embeddings_at(texts: Sequence[str], listener: Listener, *, allow_pickle: bool) -> tuple[Path, ...]:
    """Return the files of ``--textual-inversion`` as data alone; allowed pickles are rewritten.

    Raises:
        SetupError: A file cannot be had, a repository has several, or a pickle is not allowed.
        ConversionError: ``weights.unsafe_pickle``.
    """
    found = []
    for text in texts:
        endings = (*_DATA, *(_PICKLES if allow_pickle else ()))
        path = Path(text).expanduser()
        if _is_remote(text):
            path = file_at(text, "--textual-inversion", endings, listener)
        if path.is_file() and path.suffix.casefold() in _PICKLES:
            path = single_file_source.readable_embedding(path, allow_pickle=allow_pickle, listener=listener)
        found.append(path)
    return tuple(found)


def _is_remote(text: str) -> bool:
    return "://" in text or in_repository(text) is not None


def file_at(text: str, option: str, endings: tuple[str, ...], listener: Listener) -> Path:
    """Download one file that a repository or an address names, unless it is in the Hub's cache.

    Args:
        text: ``owner/name``, ``owner/name:file`` or the address of a file on the Hub.
        option: The option that it was given with, for messages.
        endings: Of the names of files that can be used.
        listener: Told of the progress.

    Raises:
        SetupError: ``hub.which-file``: the repository has several. ``hub.no-such-file``.
    """
    if "://" in text:
        single_file_source.refuse_other_sites(text)
        address = single_file_source.file_on_hub(text, (*_DATA, *_PICKLES))
        if address is None:
            raise SetupError(
                "file.not-on-hub",
                f"{text} is no file of the Hub.",
                f"download it in a browser, then: {option} PATH/TO/FILE.safetensors",
            )
        return single_file_source.fetch(address, None, listener)[0]
    named = in_repository(text)
    assert named is not None
    ref = hub.resolve(named.repo, listener=listener)
    if not isinstance(ref, hub.HubModel):
        raise SetupError("file.not-weights", f"{text} is no repository of the Hub.", f"give {option} a file.")
    name = named.file or single_file_source.only_file(ref, option, endings)
    return single_file_source.fetch_of(ref, name, listener)

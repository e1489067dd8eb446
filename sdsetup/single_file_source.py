"""Find single files: on this machine, at an address of the Hub, or say why one must be downloaded by hand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import platformdirs

from conversions.checkpoint.weight_files import choose
from conversions.checkpoint.wrong_path import pipeline_of
from conversions.events import Listener
from sdsetup import hub
from sdsetup.errors import SetupError

_SHOWN = 8
_ENDINGS = (".safetensors", ".ckpt", ".gguf")


@dataclass(frozen=True, kw_only=True)
class FileOnHub:
    """One file of a repository.

    Attributes:
        repo_id: ``owner/name``.
        revision: Branch, tag or commit.
        name: Path inside the repository.
    """

    repo_id: str
    revision: str
    name: str


def file_on_hub(model: str, endings: tuple[str, ...] = _ENDINGS) -> FileOnHub | None:
    """Return the file that an address of the Hub names; None for anything else, or with another ending."""
    if "://" not in model:
        return None
    segments = [unquote(each) for each in urlsplit(model.strip()).path.split("/") if each]
    if len(segments) < 5 or segments[2] not in ("blob", "resolve"):
        return None
    name = "/".join(segments[4:])
    if not name.lower().endswith(endings) or _is_civitai(model):
        return None
    return FileOnHub(repo_id="/".join(segments[:2]), revision=segments[3], name=name)


def refuse_other_sites(model: str) -> None:
    """Refuse an address that no client here can fetch.

    Raises:
        SetupError: ``file.download-by-hand``.
    """
    if _is_civitai(model):
        raise SetupError(
            "file.download-by-hand",
            "Files of Civitai cannot be downloaded from here.",
            "Download the .safetensors file in a browser and give its path instead: PATH/TO/FILE.safetensors",
        )


def _is_civitai(model: str) -> bool:
    text = model.strip()
    host = urlsplit(text if "://" in text else f"https://{text}").netloc.lower()
    return host.removeprefix("www.") in ("civitai.com", "civitai.red", "civitai.green")


def fetch(address: FileOnHub, revision: str | None, listener: Listener) -> tuple[Path, str, str]:
    """Download one file of a repository into the Hub's cache; what is there already is kept.

    Returns:
        The file, the repository's name with the file's, and its commit.

    Raises:
        SetupError: The repository has no such file, or it cannot be had.
    """
    ref = hub.resolve(f"{address.repo_id}@{address.revision}", revision, listener=listener)
    assert isinstance(ref, hub.HubModel)
    return fetch_of(ref, address.name, listener), f"{ref.repo_id}/{address.name}", ref.commit


def fetch_of(ref: hub.HubModel, name: str, listener: Listener) -> Path:
    """Download one file of a repository that was found; what is there already is kept.

    Raises:
        SetupError: The repository has no such file, or it cannot be had.
    """
    file = ref.file(name)
    if file is None:
        others = [each.name for each in ref.files if each.name.lower().endswith(_ENDINGS)]
        raise SetupError(
            "hub.no-such-file",
            f"{ref.repo_id} has no file {name} at {ref.revision}.",
            f"It has {', '.join(others[:6])}." if others else "",
        )
    plan = hub.DownloadPlan(model=ref, files=(file,), cached=frozenset(), weights={})
    return hub.download(plan, listener=listener) / name


def readable(path: Path, *, allow_pickle: bool, listener: Listener) -> Path:
    """Return a file of data alone with the same weights: the file itself, or a pickle rewritten.

    Raises:
        SetupError: ``file.not-weights`` or ``file.pickle``.
        ConversionError: ``weights.unsafe_pickle``.
    """
    from conversions.checkpoint.pickles import rewrite_file

    ending = path.suffix.lower()
    if ending in (".safetensors", ".gguf"):
        return path
    if ending not in (".ckpt", ".pt", ".pth", ".bin"):
        pipeline = pipeline_of(path)
        raise SetupError(
            "file.not-weights",
            f"{path} is no .safetensors, .gguf or .ckpt file.",
            "Give the file of a model, or a folder in the diffusers layout."
            if pipeline is None
            else f"Give the pipeline's folder: {pipeline}",
        )
    if not allow_pickle:
        raise SetupError(
            "file.pickle",
            f"{path.name} is a pickle, a format that can carry programs.",
            "Look for the model as .safetensors, or add --allow-pickle: it is then read as data alone.",
        )
    target = _without_pickles(path) / f"{path.stem}.safetensors"
    return rewrite_file(path, target, listener=listener)


def readable_embedding(path: Path, *, allow_pickle: bool, listener: Listener) -> Path:
    """Return a pickled textual inversion rewritten as safetensors.

    Raises:
        SetupError: ``file.pickle``.
        ConversionError: ``weights.unsafe_pickle``.
    """
    from conversions.checkpoint.pickles import rewrite_embedding

    if not allow_pickle:
        raise SetupError(
            "file.pickle",
            f"{path.name} is a pickle, a format that can carry programs.",
            "Look for the embedding as .safetensors, or add --allow-pickle: it is then read as data alone.",
        )
    target = _without_pickles(path) / f"{path.stem}.safetensors"
    return rewrite_embedding(path, target, listener=listener)


def _without_pickles(path: Path) -> Path:
    found = path.stat()
    mark = hashlib.sha256(f"{path.resolve()} {found.st_size}-{found.st_mtime_ns}".encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("sdsetup", appauthor=False) / "without-pickles" / mark


def only_file(ref: hub.HubModel, option: str, endings: tuple[str, ...]) -> str:
    """Return the one file of a repository that an option can mean.

    Raises:
        SetupError: ``hub.which-file``: there are several. ``hub.no-such-file``: there is none.
    """
    names = [each.name for each in ref.files if each.name.lower().endswith(endings)]
    if not names:
        raise SetupError(
            "hub.no-such-file",
            f"{ref.repo_id} has no {' or '.join(endings)} file.",
            f"look at its files on the Hub; {option} OWNER/NAME:FILE names one.",
        )
    if len(names) > 1:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        listed = ", ".join(names[:_SHOWN])
        raise SetupError(
            "hub.which-file",
            f"{ref.repo_id} has {len(names)} files that {option} could mean: {listed}{more}.",
            f"name one: {option} {ref.repo_id}:{names[0]}",
        )
    return names[0]


def autoencoder_at(given: str, listener: Listener) -> Path:
    """Return the folder or file of an autoencoder; a file of the Hub is downloaded.

    Raises:
        SetupError: It is not there.
    """
    path = Path(given).expanduser()
    if path.exists():
        return readable(path, allow_pickle=False, listener=listener) if path.is_file() else path
    repo, colon, inside = given.partition(":")
    if colon and "/" in repo and not inside.startswith("//"):
        ref = hub.resolve(repo, listener=listener)
        if isinstance(ref, hub.HubModel):
            return readable(fetch_of(ref, inside, listener), allow_pickle=False, listener=listener)
    if (address := file_on_hub(given)) is not None:
        return readable(fetch(address, None, listener)[0], allow_pickle=False, listener=listener)
    refuse_other_sites(given)
    ref = hub.resolve(given, listener=listener)
    if not isinstance(ref, hub.HubModel):
        raise SetupError("file.not-weights", f"{given} holds no autoencoder.", "Give a folder or a file.")
    names = [file.name for file in ref.files]
    homes = ("", *_autoencoder_components())
    home = next((each for each in homes if f"{each}/config.json".lstrip("/") in names), None)
    if home is None:
        return fetch_of(ref, only_file(ref, "--vae", (".safetensors",)), listener)
    wanted = [f"{home}/config.json".lstrip("/"), *choose(names, home).names]
    files = tuple(file for name in wanted if (file := ref.file(name)) is not None)
    plan = hub.DownloadPlan(model=ref, files=files, cached=frozenset(), weights={})
    return hub.download(plan, listener=listener) / home


def _autoencoder_components() -> tuple[str, ...]:
    from conversions.family import all_families

    return tuple(
        dict.fromkeys(
            part.component for family in all_families() for part in family.parts if part.role == "decoder"
        )
    )

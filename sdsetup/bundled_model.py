"""Models in a bundle: put there where there is a network, and found there where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

from conversions.events import Listener
from sdsetup import disk_space, hub
from sdsetup.bootstrap import bundle as bundles
from sdsetup.errors import SetupError


def put(model: str, bundle: Path, listener: Listener) -> None:
    """Put a model's files into a bundle; what is there already is kept.

    Args:
        model: A folder, a file, or a repository on the Hub.
        bundle: The bundle.
        listener: Told of the progress.

    Raises:
        SetupError: The model cannot be found or downloaded, or the disk is full.
    """
    place = bundles.model_folder(bundle, Path(model).name if Path(model).exists() else model)
    given = Path(model).expanduser()
    if given.is_file():
        disk_space.require([(place, given.stat().st_size)])
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy2(given, place)
    elif isinstance(ref := hub.resolve(model, listener=listener), hub.LocalModel):
        size = sum(path.stat().st_size for path in ref.path.rglob("*") if path.is_file())
        disk_space.require([(place, size)])
        shutil.copytree(ref.path, place, dirs_exist_ok=True)
    elif isinstance(ref, hub.HubModel):
        plan = hub.plan(ref, local_dir=place, listener=listener)
        disk_space.require([(place, plan.download_bytes)])
        hub.download(plan, listener=listener)
    bundles.add_model(bundle, place)


def find(model: str, bundle: Path) -> str:
    """Find a model in a bundle.

    Args:
        model: As it was named when the bundle was made.
        bundle: The bundle.

    Returns:
        Where it is; ``demo`` for the demo, which comes with the program.

    Raises:
        SetupError: ``install.bundle``: it is not in there, or was torn on the way.
    """
    if model == "demo" or Path(model).expanduser().exists():
        return model
    place = bundles.model_folder(bundle, model)
    if not place.is_dir():
        there = sorted(path.name.replace("--", "/") for path in (bundle / "models").glob("*"))
        raise SetupError(
            "install.bundle",
            f"{bundle} holds no model {model}; it holds {', '.join(('demo', *there))}.",
            f"where there is a network: sdsetup install {model} --bundle FOLDER",
        )
    bundles.require_model(bundle, place)
    files = [path for path in place.iterdir() if path.suffix in {".safetensors", ".ckpt", ".gguf"}]
    return str(files[0] if files and not (place / "model_index.json").is_file() else place)

"""A converted package as the runtime reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversions.checkpoint.json_file import read_object_file
from conversions.errors import ConversionError
from conversions.package import layout as packages
from conversions.package.layout import DATA_FILE, GRAPH_FILE, MANIFEST, FileRecord
from sdsetup.errors import SetupError

NEEDED = ("text_encoder", "unet", "vae_decoder")
_KINDS = ("StableDiffusionPipeline", "OnnxStableDiffusionPipeline", "ORTStableDiffusionPipeline")


@dataclass(frozen=True, kw_only=True)
class Package:
    """A folder that ``sdsetup convert`` wrote.

    Attributes:
        folder: Where it is.
        manifest: Its parsed manifest.json.
        fingerprint: SHA-256 of manifest.json, which holds the hashes of all other files.
    """

    folder: Path
    manifest: Mapping[str, Any]
    fingerprint: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def target(self) -> str:
        """What it was converted for."""
        return str(self.manifest["target"])

    @property
    def origin(self) -> str:
        """The name of the checkpoint that it was made from."""
        return str(self.manifest["checkpoint"]["origin"])

    def graph(self, submodel: str) -> Path:
        """Return the path of a submodel's ONNX file."""
        return self.folder / submodel / GRAPH_FILE

    def precision(self, submodel: str) -> str:
        """Return the precision that a submodel was converted to, ``"fp16"`` or ``"fp32"``."""
        own = self.manifest["submodels"][submodel].get("precision")
        return str(own or self.manifest["precision"])

    def has(self, submodel: str) -> bool:
        """Say whether the package holds a submodel."""
        return self.graph(submodel).is_file()

    def config(self, component: str, file: str = "config.json") -> dict[str, Any]:
        """Return a component's parsed configuration; empty when it has none."""
        path = self.folder / component / file
        return _read(path) if path.is_file() else {}

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """The scheduler's configuration, put right where old checkpoints are known to be wrong.

        Source: diffusers 0.42, ``StableDiffusionPipeline.__init__``, which corrects the same two fields.
        """
        return self.config("scheduler", "scheduler_config.json") | {"steps_offset": 1, "clip_sample": False}

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels of an image's side one latent stands for."""
        blocks = self.config("vae_decoder").get("block_out_channels", (128, 256, 512, 512))
        return int(2 ** (len(blocks) - 1))

    @property
    def default_size(self) -> tuple[int, int]:
        """Width and height of the images that the checkpoint was trained on, in pixels."""
        config = self.config("unet")
        sample = config.get("sample_size", 64)
        height, width = (sample, sample) if isinstance(sample, int) else sample
        # Configurations of the first Stable Diffusion releases say 32 and mean 64.
        # Source: diffusers 0.42, ``StableDiffusionPipeline.__init__``.
        if _version(config.get("_diffusers_version")) < (0, 9):
            height, width = max(height, 64), max(width, 64)
        return width * self.pixels_per_latent, height * self.pixels_per_latent


def draws_from_text(folder: Path) -> bool:
    """Say whether a package is of a kind that images are made with here: text to image, SD 1.x or 2.x."""
    return _kind(folder) in _KINDS


def open_package(folder: Path) -> Package:
    """Read a package's manifest and see that nothing is missing.

    Hashes are for ``sdsetup verify``; here the files' presence and sizes are looked at, which takes no time.

    Raises:
        SetupError: There is no package, it is torn, or it holds something other than text to image.
    """
    if not folder.is_dir():
        raise SetupError(
            "package.missing",
            f"there is no package at {folder}.",
            f"make one: sdsetup convert MODEL --output {folder}",
        )
    if not (folder / MANIFEST).is_file():
        what = "a checkpoint, not a package" if (folder / "model_index.json").is_file() else "no package"
        raise SetupError(
            "package.no_manifest",
            f"{folder} is {what}: it has no {MANIFEST}.",
            f"convert it first: sdsetup convert {folder} --output {folder.name}-onnx",
        )
    opened = packages.open_package(folder)
    fingerprint = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    package = Package(folder=folder, manifest=opened.manifest, fingerprint=fingerprint)
    kind = _kind(folder)
    if kind not in _KINDS:
        raise SetupError(
            "package.kind",
            f"{folder} is a {kind}; images from text are made with {_KINDS[0]}.",
            "convert a Stable Diffusion 1.x or 2.x checkpoint.",
        )
    for submodel in NEEDED:
        if submodel not in opened.submodels:
            raise _torn(folder, f"{submodel} is missing")
    for name, expected in opened.files.items():
        _look_at(folder, name, expected)
    return package


def _kind(folder: Path) -> str:
    return str(_read(folder / "model_index.json").get("_class_name", _KINDS[0]))


def _look_at(folder: Path, name: str, expected: FileRecord) -> None:
    """See that a file is there, and that a graph or its weights are whole; small files may be edited."""
    try:
        size = (folder / name).stat().st_size
    except OSError as error:
        raise _torn(folder, f"{name} is missing") from error
    if name.endswith((GRAPH_FILE, DATA_FILE)) and size != expected.size_bytes:
        raise _torn(folder, f"{name} has {size} bytes instead of {expected.size_bytes}")


def _torn(folder: Path, what: str) -> SetupError:
    return SetupError(
        "package.torn",
        f"the package {folder} is incomplete: {what}.",
        "convert the checkpoint again with --overwrite.",
    )


def _version(text: Any) -> tuple[int, ...]:
    parts = str(text or "99").split(".")[:2]
    return tuple(int(part) if part.isdigit() else 99 for part in parts)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object_file(path)
    except ConversionError as error:
        raise _torn(path.parent, error.message.rstrip(".")) from error

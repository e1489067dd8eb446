"""Copy the small files of a package: tokenizer, scheduler, feature extractor, ``model_index.json``."""

from __future__ import annotations

from typing import Any

from conversions.checkpoint.folder import SCHEDULER_FILE, Checkpoint
from conversions.family import ONNX_CLASS
from conversions.options import Options
from conversions.package.layout import Staging, record, write_json

# Class names in model_index.json that current libraries have renamed.
_RENAMED_CLASSES = {"CLIPFeatureExtractor": "CLIPImageProcessor"}


def copy_pipeline_files(checkpoint: Checkpoint, options: Options, staging: Staging) -> None:
    """Copy tokenizer, scheduler and similar files, and write the package's model_index.json."""
    files = {}
    without = set(checkpoint.family.tokenizers) - set(checkpoint.tokenizers)
    wanted = set(checkpoint.family.metadata) - without
    for name in checkpoint.storage.names():
        if name.split("/")[0] in wanted and "/" in name:
            target = staging.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name == SCHEDULER_FILE and options.scheduler_class:
                write_json(target, {**checkpoint.scheduler, "_class_name": options.scheduler_class})
            else:
                target.write_bytes(checkpoint.storage.read(name))
            files[name] = record(target)
    made = set(checkpoint.family.components)
    submodels = {part.name for part in checkpoint.family.parts}
    present = {name.split("/")[0] for name in staging.files()}
    index: dict[str, Any] = {}
    for name, entry in checkpoint.index.items():
        if name in made:
            if name in submodels:
                index[name] = [None, None]
        elif name in without:
            index[name] = [None, None]
        elif isinstance(entry, list):
            index[name] = [_RENAMED_CLASSES.get(part, part) for part in entry]
        else:
            index[name] = entry
    if options.scheduler_class:
        index["scheduler"] = ["diffusers", options.scheduler_class]
    for submodel in checkpoint.submodels:
        if submodel.name in present:
            index[submodel.name] = ["diffusers", ONNX_CLASS]
    write_json(staging.folder / "model_index.json", index)
    files["model_index.json"] = record(staging.folder / "model_index.json")
    staging.finish("", files, {"submodels": {}, "sources": {}})

"""The small files of a package, copied from a checkpoint that has more than it needs."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversions.checkpoint.folder import Checkpoint, open_folder
from conversions.options import Options
from conversions.package.layout import Staging, record
from conversions.package.package_metadata import copy_pipeline_files
from sdsetup.demo import checkpoint_path

SMALL = {
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_path(), tmp_path / "demo"))


def copied(checkpoint: Checkpoint, folder: Path, **options: Any) -> tuple[Staging, dict[str, Any]]:
    """Copy beside two submodels that were made; returns the index that was written as well."""
    staging = Staging(folder / "package", "fingerprint")
    staging.begin()
    for name in ("unet", "vae_decoder"):
        path = staging.folder / name / "model.onnx"
        path.parent.mkdir()
        path.write_bytes(b"graph")
        staging.finish(name, {f"{name}/model.onnx": record(path)}, {"submodels": {}, "sources": {}})
    copy_pipeline_files(checkpoint, Options(**options), staging)
    return staging, json.loads((staging.folder / "model_index.json").read_text("utf-8"))


def test_small_files_are_copied_and_the_index_names_what_was_made(demo: Path, tmp_path: Path) -> None:
    (demo / "notes.txt").write_text("not asked for", "utf-8")
    (demo / "samples").mkdir()
    (demo / "samples" / "one.png").write_bytes(b"png")
    staging, index = copied(open_folder(demo), tmp_path)
    found = staging.files()
    assert set(found) == SMALL | {"model_index.json", "unet/model.onnx", "vae_decoder/model.onnx"}
    for name in SMALL:
        content = (staging.folder / name).read_bytes()
        assert content == (demo / name).read_bytes()
        assert found[name].sha256 == hashlib.sha256(content).hexdigest()
        assert found[name].size_bytes == len(content)
    known = json.loads((demo / "model_index.json").read_text("utf-8"))
    made = ["diffusers", "OnnxRuntimeModel"]
    assert index == {
        **{name: entry for name, entry in known.items() if name not in ("vae", "text_encoder")},
        "text_encoder": [None, None],
        "unet": made,
        "vae_decoder": made,
    }
    assert staging.finished("") == {"submodels": {}, "sources": {}}


def test_another_scheduler_is_named_in_both_places(demo: Path, tmp_path: Path) -> None:
    staging, index = copied(open_folder(demo), tmp_path, scheduler_class="EulerDiscreteScheduler")
    assert index["scheduler"] == ["diffusers", "EulerDiscreteScheduler"]
    written = json.loads((staging.folder / "scheduler/scheduler_config.json").read_text("utf-8"))
    assert written == {**open_folder(demo).scheduler, "_class_name": "EulerDiscreteScheduler"}
    assert written["beta_start"]


def test_classes_have_the_names_of_today(demo: Path, tmp_path: Path) -> None:
    path = demo / "model_index.json"
    known = json.loads(path.read_text("utf-8"))
    entry = {"feature_extractor": ["transformers", "CLIPFeatureExtractor"]}
    path.write_text(json.dumps({**known, **entry}), "utf-8")
    (demo / "feature_extractor").mkdir()
    (demo / "feature_extractor" / "preprocessor_config.json").write_text("{}", "utf-8")
    staging, index = copied(open_folder(demo), tmp_path)
    assert index["feature_extractor"] == ["transformers", "CLIPImageProcessor"]
    assert "feature_extractor/preprocessor_config.json" in staging.files()


def test_a_tokenizer_that_no_submodel_reads_is_left_out(demo: Path, tmp_path: Path) -> None:
    opened = open_folder(demo)
    shutil.copytree(demo / "tokenizer", demo / "tokenizer_2")
    index = {**opened.index, "tokenizer_2": ["transformers", "CLIPTokenizer"]}
    second = replace(opened.family.parts[0], component="text_encoder_2", tokenizer="tokenizer_2")
    family = replace(
        opened.family,
        tokenizers=("tokenizer", "tokenizer_2"),
        metadata=(*opened.family.metadata, "tokenizer_2"),
        parts=(*opened.family.parts, second),
    )
    encoders = {**opened.components, "text_encoder_2": opened.components["text_encoder"]}
    both = replace(open_folder(demo), family=family, index=index, components=encoders)
    assert "tokenizer_2/vocab.json" in copied(both, tmp_path / "both")[0].files()
    staging, written = copied(replace(both, components=opened.components), tmp_path / "one")
    assert not [name for name in staging.files() if name.startswith("tokenizer_2/")]
    assert written["tokenizer_2"] == [None, None]
    assert written["tokenizer"] == ["transformers", "CLIPTokenizer"]

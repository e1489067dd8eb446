import json
import os

import pytest

from conversions.errors import ConversionError
from conversions.recipe import ImageSize
from sdsetup.bootstrap.command_name import quoted
from sdsetup.errors import SetupError
from sdsetup.runtime.package import open_for_images
from tests.sdsetup import toy_package


def change_manifest(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)
    toy_package.write_json(folder / "manifest.json", manifest)


@pytest.fixture
def folder(tmp_path):
    return toy_package.write(tmp_path / "with spaces and ü")


def test_a_package_opens_from_a_path_with_spaces_and_letters(folder):
    package = open_for_images(folder)
    assert package.name == "with spaces and ü"
    assert package.recipe.native == ImageSize(width=64, height=64)
    assert package.target == "cpu"


def test_a_missing_package_says_how_to_make_one(tmp_path):
    with pytest.raises(SetupError, match="no package") as caught:
        open_for_images(tmp_path / "nothing")
    assert "sdsetup convert" in caught.value.hint


def test_a_checkpoint_is_no_package_yet(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(SetupError, match="a checkpoint, not a package") as caught:
        open_for_images(folder)
    assert caught.value.hint == f"convert it first: sdsetup convert {quoted(str(folder))}"
    assert caught.value.code == "package.no_manifest"
    (folder / "model_index.json").unlink()
    with pytest.raises(SetupError, match="is no package: it has no manifest") as caught:
        open_for_images(folder)
    assert caught.value.code == "package.no_manifest"
    assert caught.value.hint.startswith("give a package's folder")  # no folder that cannot be converted


def test_a_place_with_spaces_can_be_typed_as_it_is_said(tmp_path):
    with pytest.raises(SetupError) as caught:
        open_for_images(tmp_path / "two words")
    assert caught.value.hint.endswith(f'--output "{tmp_path / "two words"}"')


@pytest.mark.parametrize("submodel", ["text_encoder", "unet", "vae_decoder"])
def test_a_submodel_that_the_manifest_leaves_out_is_named(folder, submodel):
    change_manifest(folder, lambda manifest: manifest["submodels"].pop(submodel))
    with pytest.raises(ConversionError, match=f"{submodel} is missing") as caught:
        open_for_images(folder)
    assert str(folder) in caught.value.message


@pytest.mark.parametrize(
    ("off_ns", "linked", "refused"),
    [
        (0, True, False),
        (1_000_000, True, False),
        (-1_000_000, True, False),
        (1_000_100, True, True),
        (-1_000_100, True, True),
        (10**12, False, False),
    ],
)
def test_a_file_of_the_checkpoint_that_was_changed_is_named(folder, tmp_path, off_ns, linked, refused):
    name, written_ns = "unet/model.onnx_data", 1_700_000_000_000_000_000
    if linked:
        os.link(folder / name, tmp_path / "checkpoint.safetensors")
    os.utime(folder / name, ns=(written_ns, written_ns))
    link = {"file": "unet/weights.safetensors", "modified_ns": written_ns + off_ns}
    change_manifest(folder, lambda manifest: manifest.update(linked={name: link}))
    if not refused:
        open_for_images(folder)
        return
    with pytest.raises(SetupError, match=r"own file unet/weights\.safetensors by a link") as caught:
        open_for_images(folder)
    assert caught.value.code == "package.link_changed"


@pytest.mark.parametrize("submodel", ["text_encoder", "unet", "vae_decoder"])
def test_a_missing_submodel_is_named(folder, submodel):
    (folder / submodel / "model.onnx").unlink()
    with pytest.raises(ConversionError, match=f"{submodel}/model.onnx is missing"):
        open_for_images(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"'])
def test_a_torn_manifest_is_named(folder, content):
    (folder / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises((SetupError, ConversionError), match="manifest"):
        open_for_images(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("adapters", {"name": "x"}),
        ("adapters", [{"name": "x", "weight": "much", "sha256": ""}]),
        ("embeddings", [{"name": "x", "token": "y", "vectors": 1}]),
        ("embeddings", ["x"]),
        ("memory", []),
        ("memory", {"submodels": {"unet": {"device_bytes": "many"}}}),
    ],
)
def test_a_damaged_field_of_the_manifest_is_named(folder, field, value):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**manifest, field: value}), "utf-8")
    with pytest.raises(ConversionError, match=field) as caught:
        open_for_images(folder)
    assert caught.value.code == "package.torn"


@pytest.mark.parametrize("name", ["unet/model.onnx_data", "vae_decoder/model.onnx"])
def test_a_file_that_was_cut_short_is_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(
        ConversionError, match=f"{name} has {len(content) - 1} bytes instead of {len(content)}"
    ):
        open_for_images(folder)


def test_a_missing_small_file_is_named(folder):
    (folder / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(ConversionError, match=r"merges\.txt is missing"):
        open_for_images(folder)


def test_another_kind_of_pipeline_is_refused_by_name(folder):
    toy_package.write_json(folder / "model_index.json", {"_class_name": "StableVideoDiffusionPipeline"})
    with pytest.raises(ConversionError, match="StableVideoDiffusionPipeline"):
        open_for_images(folder)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"sample_size": 32, "_diffusers_version": "0.2.2"}, (512, 512)),
        ({"sample_size": 32, "_diffusers_version": "0.42.1"}, (256, 256)),
        ({"sample_size": 96, "_diffusers_version": "0.8.0"}, (768, 768)),
        ({"sample_size": [48, 96]}, (768, 384)),
        ({}, (512, 512)),
    ],
)
def test_the_checkpoint_s_own_size_is_read_as_diffusers_reads_it(folder, config, size):
    toy_package.write_json(folder / "unet" / "config.json", config)
    assert open_for_images(folder).recipe.native == ImageSize(width=size[0], height=size[1])


def test_old_scheduler_configurations_are_put_right_as_diffusers_does(folder):
    config = {"_class_name": "DDIMScheduler", "steps_offset": 0, "clip_sample": True, "beta_end": 0.01}
    toy_package.write_json(folder / "scheduler" / "scheduler_config.json", config)
    assert open_for_images(folder).recipe.scheduler_config == config | {
        "steps_offset": 1,
        "clip_sample": False,
    }


def test_the_fingerprint_changes_with_the_manifest(folder):
    before = open_for_images(folder).fingerprint
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    toy_package.write_json(folder / "manifest.json", manifest | {"precision": "other"})
    assert open_for_images(folder).fingerprint != before


def test_a_package_is_float32_when_all_its_submodels_are(tmp_path):
    folder = toy_package.write(tmp_path / "x")
    assert open_for_images(folder).is_fp32
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["precision"] = "fp16"
    manifest["submodels"]["vae_decoder"]["precision"] = "fp32"
    toy_package.write_json(folder / "manifest.json", manifest)
    package = open_for_images(folder)
    assert package.precision("vae_decoder") == "fp32"
    assert not package.is_fp32

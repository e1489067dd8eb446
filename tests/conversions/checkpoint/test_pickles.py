from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from conversions.checkpoint.folder import open_folder
from conversions.checkpoint.pickles import holds_pickles, rewrite_embedding, rewrite_file, without_pickles
from conversions.errors import ConversionError
from conversions.events import Finished, Started, ignore

pytestmark = pytest.mark.torch

UNET = "unet/diffusion_pytorch_model"
TEXT = "text_encoder/model"


@pytest.fixture
def pickled(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The same checkpoint; text encoder and UNet as pickles, the UNet in two shards."""
    import torch

    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "pickled"))
    text = {
        name: torch.from_numpy(value) for name, value in load_file(folder / f"{TEXT}.safetensors").items()
    }
    torch.save(text, folder / "text_encoder" / "pytorch_model.bin")
    (folder / f"{TEXT}.safetensors").unlink()
    unet = {
        name: torch.from_numpy(value) for name, value in load_file(folder / f"{UNET}.safetensors").items()
    }
    names = sorted(unet)
    shards = {"00001": names[: len(names) // 2], "00002": names[len(names) // 2 :]}
    weight_map = {}
    for number, part in shards.items():
        file = f"diffusion_pytorch_model-{number}-of-00002.bin"
        torch.save({name: unet[name] for name in part}, folder / "unet" / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / f"{UNET}.bin.index.json").write_text(json.dumps({"weight_map": weight_map}), "utf-8")
    (folder / f"{UNET}.safetensors").unlink()
    return folder


def test_pickled_weights_become_the_same_tensors(
    tiny_checkpoint: Path, pickled: Path, tmp_path: Path
) -> None:
    opened = open_folder(pickled)
    assert holds_pickles(opened)
    assert not holds_pickles(open_folder(tiny_checkpoint))
    made = without_pickles(opened, tmp_path / "made", variant="", listener=ignore)
    assert not holds_pickles(made)
    for component in ("text_encoder", "unet", "vae"):
        found = {}
        for file in made.components[component].weights.files:
            found |= load_file(tmp_path / "made" / file)
        original = open_folder(tiny_checkpoint).components[component].weights.files
        expected = load_file(tiny_checkpoint / original[0])
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
    assert not list((tmp_path / "made").rglob("*.bin"))


def test_what_was_rewritten_is_taken_again_with_the_same_marks(pickled: Path, tmp_path: Path) -> None:
    opened = open_folder(pickled)
    first = without_pickles(opened, tmp_path / "made", variant="", listener=ignore)
    names = [name for part in first.components.values() for name in part.weights.names]
    marks = {name: first.storage.version(name) for name in names}
    again = without_pickles(opened, tmp_path / "made", variant="", listener=ignore)
    assert {name: again.storage.version(name) for name in names} == marks
    shutil.rmtree(tmp_path / "made")
    anew = without_pickles(opened, tmp_path / "made", variant="", listener=ignore)
    files = [name for part in anew.components.values() for name in part.weights.files]
    assert {name: anew.storage.version(name) for name in files} == {name: marks[name] for name in files}


class Program:
    """Pickles as a call of a function."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("kind", ["program", "program in a zip", "list", "torn"])
def test_a_pickle_of_anything_but_tensors_is_refused_and_not_run(
    pickled: Path, tmp_path: Path, kind: str
) -> None:
    import torch

    path = pickled / "text_encoder" / "pytorch_model.bin"
    planted = tmp_path / "planted"
    if kind == "program":
        path.write_bytes(pickle.dumps({"weight": Program(planted)}))
    elif kind == "program in a zip":
        torch.save({"weight": Program(planted)}, path)
    elif kind == "list":
        torch.save([torch.zeros(1)], path)
    else:
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ConversionError) as caught:
        without_pickles(open_folder(pickled), tmp_path / "made", variant="", listener=ignore)
    torn = kind == "torn"
    assert caught.value.code == ("weights.damaged_pickle" if torn else "weights.unsafe_pickle")
    assert ("Download the file again" if torn else "Do not use") in caught.value.hint
    assert not planted.exists()
    assert not (tmp_path / "made").exists()


def test_views_of_one_tensor_are_kept_under_all_their_names(pickled: Path, tmp_path: Path) -> None:
    import torch

    path = pickled / "text_encoder" / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    matrix = next(tensor for tensor in tensors.values() if tensor.ndim == 2)
    torch.save({**tensors, "tied": matrix, "turned": matrix.t()}, path)
    made = without_pickles(open_folder(pickled), tmp_path / "made", variant="", listener=ignore)
    found = load_file(tmp_path / "made" / made.components["text_encoder"].weights.files[0])
    np.testing.assert_array_equal(found["tied"], matrix.numpy())
    np.testing.assert_array_equal(found["turned"], matrix.numpy().T)


def test_one_pickle_is_rewritten_once(pickled: Path, tmp_path: Path) -> None:
    import torch

    source, target = pickled / "text_encoder" / "pytorch_model.bin", tmp_path / "new" / "text.safetensors"
    told: list[object] = []
    assert rewrite_file(source, target, listener=told.append) == target
    assert told == [
        Started(task=source.name, label=f"{source.name}: rewriting as safetensors"),
        Finished(task=source.name),
    ]
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    expected = torch.load(source, weights_only=True)
    found = load_file(target)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], value.numpy()) for name, value in expected.items())
    source.unlink()
    assert rewrite_file(source, target, listener=told.append) == target
    assert len(told) == 2


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 a zip that ends early"])
def test_a_damaged_pickle_is_one_clear_message(content: bytes, tmp_path: Path) -> None:
    source = tmp_path / "model.ckpt"
    source.write_bytes(content)
    with pytest.raises(ConversionError) as caught:
        rewrite_file(source, tmp_path / "out" / "model.safetensors", listener=ignore)
    assert caught.value.code == "weights.damaged_pickle"
    assert "weights_only" not in caught.value.message


def test_a_pickle_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    """Zeros that are compressed, one number seen a million million times, an entry that is named often."""
    import torch

    plain, packed = tmp_path / "plain.ckpt", tmp_path / "packed.ckpt"
    torch.save({"weight": torch.zeros(40 << 20)}, plain)
    with zipfile.ZipFile(plain) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    assert packed.stat().st_size < 1 << 20
    seen = tmp_path / "seen.ckpt"
    torch.save({"weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, seen)
    often = tmp_path / "often.ckpt"
    matrix = torch.zeros(1 << 20)
    torch.save({str(place): matrix for place in range(40)}, often)
    for source, rewrite in ((packed, rewrite_file), (seen, rewrite_file), (often, rewrite_embedding)):
        with pytest.raises(ConversionError, match="would unpack to") as caught:
            rewrite(source, tmp_path / "out" / "model.safetensors", listener=ignore)
        assert caught.value.code == "weights.unsafe_pickle"
        assert not (tmp_path / "out" / "model.safetensors").exists()
    # Under two names a tensor is written twice, and small files may well grow a little.
    torch.save({"one": matrix, "two": matrix, "wide": torch.zeros(1).expand(100, 100)}, often)
    found = load_file(rewrite_file(often, tmp_path / "out" / "model.safetensors", listener=ignore))
    assert {name: value.size for name, value in found.items()} == {
        "one": 1 << 20,
        "two": 1 << 20,
        "wide": 10_000,
    }


def test_a_pickle_without_pytorch_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conversions.checkpoint.pickles.find_spec", lambda _: None)
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(ConversionError, match="needs PyTorch") as caught:
        rewrite_file(tmp_path / "model.ckpt", tmp_path / "out" / "model.safetensors", listener=ignore)
    assert caught.value.code == "weights.needs_pytorch"

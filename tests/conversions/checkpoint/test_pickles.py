from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from conversions.checkpoint import pickles
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


@pytest.mark.robustness
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


def test_a_small_file_may_unpack_to_64_mib_and_a_large_one_to_twice_its_size(tmp_path: Path) -> None:
    source = tmp_path / "model.ckpt"
    source.write_bytes(bytes(1000))
    most = 2 * 1000 + 64 * 2**20
    pickles._demand_size(source, (most - 1, 1))
    with pytest.raises(ConversionError, match=rf"model.ckpt would unpack to {most + 1:,} bytes") as caught:
        pickles._demand_size(source, (most, 1))
    assert caught.value.code == "weights.unsafe_pickle"


# What runs in a process of its own is called here as that process does.
@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ({"string_to_param": {"*": 1}, "name": "cat"}, {"cat": 1}),
        ({"string_to_param": {"*": 1}, "name": ""}, {"*": 1}),
        ({"string_to_param": {"*": 1}, "name": 5}, {"*": 1}),
        ({"string_to_param": {"*": 1}}, {"*": 1}),
        ({"string_to_param": {"a": 1, "b": 2}, "name": "cat"}, {"a": 1, "b": 2}),
        ({"<toy>": 3}, {"<toy>": 3}),
        ({"<toy>": 3, "<car>": 4}, {"<toy>": 3, "<car>": 4}),
    ],
)
def test_embeddings_are_rewritten_by_their_tokens(
    content: dict[str, Any], tokens: dict[str, int], tmp_path: Path
) -> None:
    import torch

    def rows(table: dict[str, Any]) -> dict[str, Any]:
        return {name: torch.full((2, 3), value, dtype=torch.float16) for name, value in table.items()}

    if "string_to_param" in content:
        content = {**content, "string_to_param": rows(content["string_to_param"])}
    else:
        content = rows(content)
    torch.save(content, tmp_path / "cat.pt")
    pickles._write_embedding(tmp_path / "cat.pt", tmp_path / "cat.safetensors")
    found = load_file(tmp_path / "cat.safetensors")
    assert {name: float(value[0, 0]) for name, value in found.items()} == tokens
    assert {(value.dtype, value.shape) for value in found.values()} == {(np.dtype(np.float32), (2, 3))}


@pytest.mark.parametrize(
    "content", [{}, [1], {"step": 3}, {"string_to_param": {}}, {"string_to_param": {"*": 1}}]
)
def test_what_is_no_embedding_is_refused(content: Any, tmp_path: Path) -> None:
    import torch

    torch.save(content, tmp_path / "cat.pt")
    with pytest.raises(ConversionError, match=r"^cat.pt is no textual inversion of a known form") as caught:
        pickles._write_embedding(tmp_path / "cat.pt", tmp_path / "cat.safetensors")
    assert caught.value.code == "weights.unsafe_pickle"
    assert not (tmp_path / "cat.safetensors").exists()


@pytest.mark.parametrize("wrapped", [False, True])
def test_tensors_are_rewritten_whatever_their_layout(wrapped: bool, tmp_path: Path) -> None:
    import torch

    matrix = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    tensors = {"plain": matrix, "turned": matrix.t(), "part": matrix[:, 1:], "half": matrix.half()}
    torch.save({"state_dict": tensors, "epoch": 3} if wrapped else tensors, tmp_path / "model.ckpt")
    os.utime(tmp_path / "model.ckpt", ns=(10**18, 10**18))
    pickles._write_tensors(tmp_path / "model.ckpt", tmp_path / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value.numpy())
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == 10**18


@pytest.mark.parametrize("content", [{}, [1], {"weight": 3}, {"state_dict": {}}])
def test_what_is_no_table_of_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    import torch

    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(ConversionError, match=r"^model.ckpt is no table of tensors") as caught:
        pickles._write_tensors(tmp_path / "model.ckpt", tmp_path / "model.safetensors")
    assert caught.value.code == "weights.unsafe_pickle"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (pickle.dumps({"weight": Program(Path("planted"))}, protocol=2), "weights.unsafe_pickle"),
        (b"not a pickle", "weights.damaged_pickle"),
        (b"", "weights.damaged_pickle"),
        (b"\x80\x02", "weights.damaged_pickle"),
    ],
)
def test_a_pickle_that_is_not_loaded_says_why(content: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(ConversionError) as caught:
        pickles._loaded(tmp_path / "model.ckpt")
    assert caught.value.code == code
    assert not Path("planted").exists()


def test_an_index_names_the_new_files(tmp_path: Path) -> None:
    source, target = tmp_path / "old.json", tmp_path / "new.json"
    places = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    source.write_text(json.dumps({"metadata": {"total_size": 7}, "weight_map": places}), "utf-8")
    pickles._write_index(source, target)
    assert json.loads(target.read_text("utf-8")) == {
        "metadata": {"total_size": 7},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    for broken in ({}, {"weight_map": [1]}, {"weight_map": {"a": 1}}):
        source.write_text(json.dumps(broken), "utf-8")
        with pytest.raises(ConversionError, match="does not say in which file") as caught:
            pickles._write_index(source, target)
        assert caught.value.code == "checkpoint.corrupt"


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"),
        ("unet/diffusion_pytorch_model.fp16.bin", "unet/diffusion_pytorch_model.fp16.safetensors"),
        ("text_encoder/pytorch_model.bin", "text_encoder/model.safetensors"),
        ("text_encoder/pytorch_model.bin.index.json", "text_encoder/model.safetensors.index.json"),
        ("pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"),
    ],
)
def test_files_are_renamed_as_each_library_has_it(name: str, renamed: str) -> None:
    assert pickles._renamed(name) == renamed


def test_a_folder_that_exists_takes_the_new_file(tmp_path: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(2)}, tmp_path / "a.ckpt")
    target = tmp_path / "a.safetensors"
    assert rewrite_file(tmp_path / "a.ckpt", target, listener=ignore) == target
    assert list(load_file(target)) == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a right there")
def test_weights_may_be_linked_from_elsewhere_and_other_files_may_not(pickled: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    weights = "vae/diffusion_pytorch_model.safetensors"
    shutil.move(pickled / weights, elsewhere / "weights")
    (pickled / weights).symlink_to(elsewhere / "weights")
    made = without_pickles(open_folder(pickled), tmp_path / "made", variant="", listener=ignore)
    assert (tmp_path / "made" / weights).read_bytes() == (elsewhere / "weights").read_bytes()
    assert made.components["vae"].weights.files == (weights,)
    merges = "tokenizer/merges.txt"
    shutil.move(pickled / merges, elsewhere / "merges")
    (pickled / merges).symlink_to(elsewhere / "merges")
    with pytest.raises(ConversionError):
        without_pickles(open_folder(pickled), tmp_path / "other", variant="", listener=ignore)
    assert not (tmp_path / "other").exists()

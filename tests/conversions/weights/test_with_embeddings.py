"""Textual inversion learned at conversion, against diffusers' ``load_textual_inversion``."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conversions import graphs
from conversions.checkpoint.folder import Checkpoint, component_tensors, open_folder
from conversions.checkpoint.pickles import rewrite_embedding
from conversions.conversion import convert
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.families.stable_diffusion import FAMILY
from conversions.options import Options
from conversions.package.layout import open_package
from conversions.plan import make_plan
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.tokenizers import open_tokenizer
from conversions.tokenizers.compare import compare_tokenizers
from conversions.tokenizers.registry import open_tokenizer_of
from conversions.weights.expression import evaluate_range
from conversions.weights.read_numbers import read_numbers
from conversions.weights.textual_inversion import read_embeddings
from conversions.weights.with_embeddings import learned_embeddings, with_embeddings
from sdsetup.demo import checkpoint_path
from sdsetup.imaging.request import Request
from tests.checkpoints import VARIANTS, make_variant
from tests.lora_packages import drawn, make_package_with
from tests.sdsetup.imaging import clip_vocabulary
from tests.sdsetup.imaging.test_pipeline import psnr
from tests.sdsetup.runtime.test_textual_inversion import WIDTHS, of_diffusers, vectors, write

REQUEST = Request(
    prompt="a red cat-toy horse, cat-toy", seed=5, steps=3, guidance_scale=7.5, width=72, height=136
)


def learned_package(folder: Path, output: Path, graph_cache: Path, files: list[Path]) -> Path:
    checkpoint = with_embeddings(open_folder(folder), files)
    plan = make_plan(checkpoint, Options(target="cpu", precision="fp32"), graph_cache)
    convert(
        plan, checkpoint, output, tool_version="test", graph_cache=graph_cache, checks=None, listener=ignore
    )
    return output


@pytest.mark.torch
@pytest.mark.parametrize("family", [pytest.param(each, marks=pytest.mark.robustness) for each in WIDTHS])
def test_a_package_knows_the_tokens_as_diffusers_does(family: str, tmp_path: Path, graph_cache: Path) -> None:
    folder = make_variant(tmp_path / family, VARIANTS[family])
    plain = make_package_with(folder, tmp_path / "plain", graph_cache)
    tables = vectors(3, WIDTHS[family])
    file = write(tmp_path / "cat-toy.safetensors", tables)
    package = learned_package(folder, tmp_path / "learned", graph_cache, [file])
    found = drawn(package, REQUEST)
    wanted = of_diffusers(folder, "cat-toy", tables, REQUEST)
    assert psnr(found, wanted) > 60
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert np.array_equal(found, drawn(plain, REQUEST, embeddings=[file]))
    assert psnr(found, drawn(plain, REQUEST)) < 40
    other = replace(REQUEST, prompt="a red horse")
    assert np.array_equal(drawn(package, other), drawn(plain, other))
    opened = open_package(package)
    for name in opened.family.tokenizers:
        assert {"cat-toy", "cat-toy_1", "cat-toy_2"} <= set(open_tokenizer(package / name).added_tokens)
        assert compare_tokenizers(package / name) == []
        size = open_tokenizer(package / name).size
        assert opened.config(name.replace("tokenizer", "text_encoder"))["vocab_size"] == size
    entry = opened.manifest["embeddings"]
    assert [(each["token"], each["vectors"]) for each in entry] == [("cat-toy", 3)]


@pytest.mark.robustness
@pytest.mark.torch
def test_a_learned_token_is_verified_with_pytorch(tmp_path: Path, graph_cache: Path) -> None:
    from conversions.conversion import Checks
    from sdsetup.verification_choices import device_for

    folder = make_variant(tmp_path / "tiny", VARIANTS["stable-diffusion"])
    file = write(tmp_path / "cat-toy.safetensors", vectors(2, (32,)))
    checkpoint = with_embeddings(open_folder(folder), [file])
    plan = make_plan(checkpoint, Options(target="cpu", precision="fp32"), graph_cache)
    converted = convert(
        plan,
        checkpoint,
        tmp_path / "p",
        tool_version="test",
        graph_cache=graph_cache,
        checks=Checks(device=device_for("cpu")),
        listener=ignore,
    )
    assert converted.report is not None
    parity = {each.submodel: each.parity for each in converted.report.submodels}["text_encoder"]
    assert parity is not None
    assert parity.psnr_db > 110


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_path(), tmp_path / "demo"))


def table_of(checkpoint: Checkpoint) -> Any:
    """Return the numbers of a text encoder's table of tokens."""
    tensors = component_tensors(checkpoint.storage, checkpoint.components["text_encoder"])
    table = next(each for name, each in tensors.items() if name.endswith("token_embedding.weight"))
    paths = {each.file: checkpoint.storage.path_of(each.file) for each in table.stored}
    read = read_numbers({file: path for file, path in paths.items() if path is not None})
    return evaluate_range(table, 0, table.size, read).reshape(table.shape)


@pytest.mark.parametrize("shape", [(3,), (1,), ()])
@pytest.mark.parametrize("spare", [0, 2, 5])
def test_a_table_gets_the_rows_behind_those_of_the_tokenizer(
    shape: tuple[int, ...], spare: int, demo: Path, tmp_path: Path
) -> None:
    path = demo / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    (name,) = (each for each in tensors if each.endswith("token_embedding.weight"))
    known = tensors[name]
    size, width = known.shape
    if spare:  # rows that no token reads
        save_file({**tensors, name: np.concatenate([known, known[:spare] + 1])}, path)
        config = json.loads((demo / "text_encoder/config.json").read_text("utf-8"))
        changed = json.dumps({**config, "vocab_size": size + spare})
        (demo / "text_encoder/config.json").write_text(changed, "utf-8")
    vectors = np.random.default_rng(4).normal(0, 1, (*shape, width)).astype(np.float32)
    save_file({"<toy>": vectors}, tmp_path / "toy.safetensors")
    learned = with_embeddings(open_folder(demo), [tmp_path / "toy.safetensors"])
    count = vectors.size // width
    found = table_of(learned)
    assert found.shape == (size + count, width)
    np.testing.assert_array_equal(found[:size], known)
    np.testing.assert_array_equal(found[size:], vectors.reshape(count, width))
    assert learned.components["text_encoder"].config["vocab_size"] == size + count
    (entry,) = learned_embeddings(learned.components["text_encoder"].transforms)
    assert (entry.name, entry.token, entry.vectors) == ("toy.safetensors", "<toy>", count)
    assert entry.sha256 == hashlib.sha256((tmp_path / "toy.safetensors").read_bytes()).hexdigest()
    assert make_plan(learned, Options(target="cpu"), None).embeddings == (entry,)


def test_files_follow_each_other_and_none_changes_nothing(demo: Path, tmp_path: Path) -> None:
    opened = open_folder(demo)
    assert with_embeddings(opened, []) is opened
    assert learned_embeddings(opened.components["text_encoder"].transforms) == ()
    width = table_of(opened).shape[1]
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for number, path in enumerate(paths, start=1):
        save_file({f"<{path.stem}>": np.full((number, width), number, np.float32)}, path)
    learned = with_embeddings(opened, paths)
    assert table_of(learned)[-3:, 0].tolist() == [1, 2, 2]
    tokens = open_tokenizer_of(learned.storage, "tokenizer").added_tokens
    assert list(tokens)[-3:] == ["<a>", "<b>", "<b>_1"]
    for number, path in enumerate(paths, start=1):
        assert f"textual-inversion/{number}-{path.name}" in learned.storage.names()


def test_a_tokenizer_that_knows_more_than_the_table_holds_is_refused(demo: Path, tmp_path: Path) -> None:
    path = demo / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    (name,) = (each for each in tensors if each.endswith("token_embedding.weight"))
    size, width = tensors[name].shape
    save_file({**tensors, name: tensors[name][: size - 1]}, path)
    save_file({"<toy>": np.ones((1, width), np.float32)}, tmp_path / "toy.safetensors")
    with pytest.raises(ConversionError) as caught:
        with_embeddings(open_folder(demo), [tmp_path / "toy.safetensors"])
    assert caught.value.code == "embedding.table"
    assert f"knows {size:,} tokens, and 'text_encoder' has {size - 1:,} rows" in caught.value.message
    save_file({"else": tensors[name]}, path)
    with pytest.raises(ConversionError) as caught:
        with_embeddings(open_folder(demo), [tmp_path / "toy.safetensors"])
    assert caught.value.code == "embedding.table"


@pytest.mark.parametrize("form", ["vocabulary", "decoder", "added", "whole"])
def test_every_form_of_a_tokenizer_learns_the_token(form: str, tmp_path: Path) -> None:
    from conversions.checkpoint.layered import Layered
    from conversions.weights.with_embeddings import _tokenizer_places

    folder = tmp_path / "checkpoint" / "tokenizer"
    described = {"content": "<old>", "lstrip": False, "normalized": True, "rstrip": False,
                 "single_word": False, "special": False}  # fmt: skip
    clip_vocabulary.write(folder, whole=form == "whole", config={"model_max_length": 77})
    size = open_tokenizer(folder).size
    if form == "decoder":
        config = {"model_max_length": 77, "added_tokens_decoder": {str(size): described}}
        (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    elif form == "added":
        (folder / "added_tokens.json").write_text(json.dumps({"<old>": size}), "utf-8")
    elif form == "whole":
        whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        tokens = [*(whole.get("added_tokens") or ()), {"id": size, **described}]
        (folder / "tokenizer.json").write_text(json.dumps({**whole, "added_tokens": tokens}), "utf-8")
    from conversions.checkpoint.layered import all_of
    from conversions.checkpoint.storage import Folder

    class Opened:
        storage = Folder(folder.parent)

    before = open_tokenizer(folder)
    places = {**all_of(Opened.storage), **_tokenizer_places(Opened, "tokenizer", ("Cat", "Cat_1"))}
    learned = open_tokenizer_of(Layered("learned", places), "tokenizer")
    for text in ("a photo of a Cat", "cat <old> horse", "a red horse"):
        assert learned.encode(text) == before.with_tokens(("Cat", "Cat_1")).encode(text)
    assert learned.size == before.size + 2
    if form == "whole":
        written = json.loads(places["tokenizer/tokenizer.json"].storage.read("tokenizer/tokenizer.json"))
        assert [each["content"] for each in written["added_tokens"][-3:]] == ["<old>", "Cat", "Cat_1"]
        assert [each["id"] for each in written["added_tokens"][-3:]] == [size, size + 1, size + 2]


def test_a_larger_vocabulary_has_the_graph_of_the_usual_one() -> None:
    config = next(each.config for each in FAMILY.shipped if each.kind.id == CLIP_TEXT.id)
    assert graphs.locate(CLIP_TEXT, config, None) == "shipped"
    larger = {**config, "vocab_size": 49411}
    assert graphs.locate(CLIP_TEXT, larger, None) == "shipped"
    model = graphs.find(CLIP_TEXT, larger, None)
    assert model is not None
    table = model.graph.initializers["embeddings.token_embedding.weight"]
    assert tuple(table.shape) == (49411, config["hidden_size"])


@pytest.mark.torch
def test_pickled_embeddings_are_read_as_data_alone(tmp_path: Path) -> None:
    import torch

    values = torch.arange(64, dtype=torch.float32).reshape(2, 32)
    forms = {
        "web": {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": values},
            "name": "web-cat",
            "step": 9,
        },
        "diffusers": {"<toy>": values[0]},
    }
    for stem, content in forms.items():
        torch.save(content, tmp_path / f"{stem}.pt")
        made = rewrite_embedding(
            tmp_path / f"{stem}.pt", tmp_path / "made" / f"{stem}.safetensors", listener=ignore
        )
        found = read_embeddings(made)
        assert found.token == {"web": "web-cat", "diffusers": "<toy>"}[stem]
        np.testing.assert_array_equal(found.tables[32], values.numpy()[: len(found.tokens)])
        assert list(load_file(made)) == [found.token]

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(tmp_path / "written"), "w")

    torch.save({"string_to_param": {"*": values}, "name": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ConversionError) as caught:
        rewrite_embedding(tmp_path / "evil.pt", tmp_path / "evil.safetensors", listener=ignore)
    assert caught.value.code == "weights.unsafe_pickle"
    assert not (tmp_path / "written").exists()


@pytest.mark.torch
def test_what_does_not_fit_is_refused_when_planning(tmp_path: Path) -> None:
    folder = make_variant(tmp_path / "tiny", VARIANTS["stable-diffusion"])
    checkpoint = open_folder(folder)

    def refused(path: Path) -> str:
        with pytest.raises(ConversionError) as caught:
            with_embeddings(checkpoint, [path])
        return caught.value.code

    assert refused(write(tmp_path / "wide.safetensors", vectors(1, (768,)))) == "embedding.width"
    assert refused(write(tmp_path / "!.safetensors", vectors(1, (32,)))) == "embedding.token"
    assert refused(tmp_path / "gone.safetensors") == "embedding.missing"
    save_file(
        {"a": np.zeros((1, 32), np.float32), "b": np.zeros((1, 32), np.float32)}, tmp_path / "x.safetensors"
    )
    assert refused(tmp_path / "x.safetensors") == "embedding.format"
    flux = open_folder(make_variant(tmp_path / "flux", VARIANTS["z-image turbo"]))
    with pytest.raises(ConversionError, match="Z-Image") as caught:
        with_embeddings(flux, [write(tmp_path / "cat.safetensors", vectors(1, (32,)))])
    assert caught.value.code == "embedding.family"

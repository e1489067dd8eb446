"""Graphs without weights: where they are found, under which names they are kept, and what is damaged."""

from __future__ import annotations

import logging
import lzma
from pathlib import Path

import onnx_ir as ir
import pytest

from conversions import graphs
from conversions.families.stable_diffusion import SD1_TEXT
from conversions.submodels.clip_text import CLIP_TEXT

USUAL = dict(SD1_TEXT)
MORE_WORDS = {**USUAL, "vocab_size": 50_000}
UNUSUAL = {**USUAL, "layer_norm_eps": 1e-3}


@pytest.fixture
def graph() -> ir.Model:
    found = graphs.find(CLIP_TEXT, USUAL, None)
    assert found is not None
    return found


def test_a_graph_ships_or_is_kept_or_has_to_be_traced(graph: ir.Model, tmp_path: Path) -> None:
    cache = tmp_path / "user" / "graphs"
    assert graphs.locate(CLIP_TEXT, USUAL, None) == graphs.locate(CLIP_TEXT, USUAL, cache) == "shipped"
    assert graphs.locate(CLIP_TEXT, UNUSUAL, None) == graphs.locate(CLIP_TEXT, UNUSUAL, cache) == "to trace"
    assert graphs.find(CLIP_TEXT, UNUSUAL, None) is graphs.find(CLIP_TEXT, UNUSUAL, cache) is None
    path = graphs.keep(graphs.pack(graph), CLIP_TEXT, UNUSUAL, cache)
    assert list(cache.iterdir()) == [path]
    assert path.name == f"{graphs.fingerprint(CLIP_TEXT, UNUSUAL)}.onnx.xz"
    assert graphs.locate(CLIP_TEXT, UNUSUAL, cache) == "cached"
    assert graphs.locate(CLIP_TEXT, UNUSUAL, None) == "to trace"
    found = graphs.find(CLIP_TEXT, UNUSUAL, cache)
    assert found is not None
    assert [node.op_type for node in found.graph] == [node.op_type for node in graph.graph]


def test_another_vocabulary_is_another_table_in_the_same_graph(graph: ir.Model, tmp_path: Path) -> None:
    assert graphs.fingerprint(CLIP_TEXT, MORE_WORDS) != graphs.fingerprint(CLIP_TEXT, USUAL)
    assert graphs.locate(CLIP_TEXT, MORE_WORDS, None) == "shipped"
    found = graphs.find(CLIP_TEXT, MORE_WORDS, None)
    assert found is not None
    name = "embeddings.token_embedding.weight"
    rows = [next(iter(each.graph.initializers[name].shape or ())) for each in (graph, found)]
    assert rows == [49_408, 50_000]
    # A table of its own is taken where the usual graph is not at hand.
    odd = {**UNUSUAL, "vocab_size": 50_000}
    assert graphs.locate(CLIP_TEXT, odd, tmp_path) == "to trace"
    assert graphs.find(CLIP_TEXT, odd, tmp_path) is None
    graphs.keep(graphs.pack(found), CLIP_TEXT, odd, tmp_path)
    assert graphs.locate(CLIP_TEXT, odd, tmp_path) == "cached"
    assert graphs.find(CLIP_TEXT, odd, tmp_path) is not None


def test_what_is_packed_comes_out_as_it_was(graph: ir.Model) -> None:
    packed = graphs.pack(graph)
    assert len(packed) < 20_000
    found = graphs.unpack(packed, CLIP_TEXT, USUAL)
    assert [value.name for value in found.graph.inputs] == ["input_ids"]
    assert [value.name for value in graph.graph.inputs] == ["input_ids"]
    weights = {name for name, value in graph.graph.initializers.items() if value.const_value is None}
    assert len(weights) > 100
    assert {name for name, value in found.graph.initializers.items() if value.const_value is None} == weights


@pytest.mark.parametrize("damage", ["torn", "noise", "empty", "other"])
def test_a_damaged_graph_is_said_to_be_and_counts_as_absent(
    damage: str, graph: ir.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    packed = graphs.pack(graph)
    content = {
        "torn": packed[: len(packed) // 2],
        "noise": b"?" * 100,
        "empty": b"",
        "other": lzma.compress(b"\xff" * 50),
    }[damage]
    path = graphs.keep(content, CLIP_TEXT, UNUSUAL, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert graphs.find(CLIP_TEXT, UNUSUAL, tmp_path) is None
    assert str(path) in caplog.text


def test_what_shapes_a_graph_or_its_ports_makes_its_name(tmp_path: Path) -> None:
    from conversions.submodels.clip_text import CLIP_TEXT_LAYERS

    name = graphs.fingerprint(CLIP_TEXT, USUAL)
    assert name.startswith("clip_text-")
    assert len(name) == len("clip_text-") + 16
    assert graphs.fingerprint(CLIP_TEXT, {**USUAL, "dropout": 0.5, "layer_norm_eps": 1e-5}) == name
    assert (
        len({name, graphs.fingerprint(CLIP_TEXT_LAYERS, USUAL), graphs.fingerprint(CLIP_TEXT, UNUSUAL)}) == 3
    )

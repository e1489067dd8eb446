"""Graphs that are at hand, and those that have to be traced first."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from conversions import graphs
from conversions.checkpoint.folder import Checkpoint, open_folder
from conversions.errors import ConversionError
from conversions.events import Event, Finished, Started, ignore
from conversions.graphs import obtain as module
from conversions.graphs.obtain import demand_obtainable, obtain
from sdsetup.demo import checkpoint_path

GIB = 1 << 30


@pytest.fixture
def unusual(tmp_path: Path) -> Checkpoint:
    """A text encoder that no graph at hand fits."""
    folder = Path(shutil.copytree(checkpoint_path(), tmp_path / "demo"))
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**config, "layer_norm_eps": 1e-3}), "utf-8")
    return open_folder(folder)


def test_graphs_at_hand_are_found_and_nothing_is_told() -> None:
    opened, told = open_folder(checkpoint_path()), list[Event]()
    found = obtain(opened.submodels, opened, None, False, told.append)
    assert list(found) == ["text_encoder", "unet", "vae_encoder", "vae_decoder"]
    for submodel in opened.submodels:
        wanted = graphs.find(submodel.kind, opened.config_of(submodel), None)
        assert wanted is not None
        assert len(found[submodel.name].graph) == len(wanted.graph)
    demand_obtainable(opened.submodels, opened, None, False, told.append)
    assert told == []


def test_without_pytorch_no_graph_is_traced(unusual: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name != "diffusers" else object())
    for look in (obtain, demand_obtainable):
        with pytest.raises(ConversionError) as caught:
            look(unusual.submodels, unusual, None, False, lambda _: None)
        assert caught.value.code == "graph.needs_pytorch"
        assert caught.value.message == (
            "The graph of text_encoder must be traced, which takes Python packages that are not installed: "
            "torch and transformers."
        )
        with pytest.raises(ConversionError, match="of text_encoder, unet, vae_encoder and vae_decoder must"):
            look(unusual.submodels, unusual, None, True, lambda _: None)


def packed_instead(kind: Any, config: Any, weights: Any) -> bytes:
    """Give the graph of the usual configuration, which takes no tracing; runs in the tracer's process."""
    if config.get("hidden_act") == "none":
        raise ConversionError("config.untraceable", "It cannot be built.")
    assert weights.component in ("text_encoder", "vae")
    assert {tensor.shape for tensor in weights.tensors.values()}
    model = graphs.find(kind, {name: each for name, each in config.items() if name != "layer_norm_eps"}, None)
    assert model is not None
    model.doc_string = f"traced for {weights.component} by {os.getpid()}"
    return graphs.pack(model)


def demanded_instead(kind: Any, config: Any, weights: Any) -> None:
    """Say which weights are compared, as an error."""
    if config.get("layer_norm_eps") == 1e-4:
        raise ConversionError("weights.shape", f"{kind.id} {weights.component} {os.getpid()}")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "trace_and_pack", packed_instead)
    monkeypatch.setattr(graphs, "demand_weights", demanded_instead)


@pytest.mark.torch
@pytest.mark.usefixtures("traced")
def test_graphs_are_traced_in_other_processes_told_and_kept(unusual: Checkpoint, tmp_path: Path) -> None:
    told, cache = list[Event](), tmp_path / "cache"
    wanted = [each for each in unusual.submodels if each.component in ("text_encoder", "unet")]
    found = obtain(wanted, unusual, cache, False, told.append)
    assert set(found) == {"text_encoder", "unet"}
    traced = found["text_encoder"].doc_string or ""
    assert traced.startswith("traced for text_encoder by ")
    assert traced != f"traced for text_encoder by {os.getpid()}"
    assert "traced for" not in (found["unet"].doc_string or "")
    assert told == [
        Started(task="trace text_encoder", label="text_encoder: tracing its graph"),
        Finished(task="trace text_encoder"),
    ]
    (kept,) = cache.iterdir()
    assert kept.name.startswith("clip_text-")
    # The next time it is at hand, and without a folder none is kept.
    assert obtain(wanted, unusual, cache, False, told.append)["text_encoder"].doc_string == traced
    assert len(told) == 2
    again = obtain(wanted, unusual, None, False, ignore)["text_encoder"].doc_string
    assert again not in (traced, None)
    # What is asked for anew replaces what is kept.
    anew = obtain(wanted[:1], unusual, cache, True, ignore)["text_encoder"].doc_string
    assert anew not in (traced, again)
    assert obtain(wanted[:1], unusual, cache, False, ignore)["text_encoder"].doc_string == anew


@pytest.mark.torch
@pytest.mark.usefixtures("traced")
def test_two_graphs_of_a_component_are_told_side_by_side(unusual: Checkpoint, tmp_path: Path) -> None:
    opened = open_folder(tmp_path / "demo")
    wanted = [each for each in opened.submodels if each.component == "vae"]
    told = list[Event]()
    assert set(obtain(wanted, opened, None, True, told.append)) == {"vae_encoder", "vae_decoder"}
    assert [(type(each).__name__, each.task) for each in told if isinstance(each, Started | Finished)] == [
        ("Started", "trace vae_encoder"),
        ("Started", "trace vae_decoder"),
        ("Finished", "trace vae_encoder"),
        ("Finished", "trace vae_decoder"),
    ]


@pytest.mark.torch
@pytest.mark.usefixtures("traced")
def test_what_cannot_be_traced_is_said_before_and_while_it_is(unusual: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "demo" / "text_encoder" / "config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**config, "layer_norm_eps": 1e-4, "hidden_act": "none"}), "utf-8")
    opened, told = open_folder(tmp_path / "demo"), list[Event]()
    with pytest.raises(ConversionError) as caught:
        demand_obtainable(opened.submodels, opened, None, False, told.append)
    kind, component, process = caught.value.message.split()
    assert (caught.value.code, kind, component) == ("weights.shape", "clip_text", "text_encoder")
    assert int(process) != os.getpid()
    label = "comparing weights with the classes that will be traced"
    assert told == [Started(task="classes", label=label)]
    with pytest.raises(ConversionError, match="It cannot be built"):
        obtain(opened.submodels, opened, None, False, told.append)
    told.clear()
    demand_obtainable(unusual.submodels, unusual, tmp_path, True, told.append)
    assert told == [Started(task="classes", label=label), Finished(task="classes")]


@pytest.mark.robustness  # half a minute
@pytest.mark.torch
def test_what_is_not_at_hand_is_traced_and_kept(unusual: Checkpoint, tmp_path: Path) -> None:
    told, cache = list[Event](), tmp_path / "cache"
    wanted = [each for each in unusual.submodels if each.component in ("text_encoder", "unet")]
    demand_obtainable(wanted, unusual, cache, False, told.append)
    label = "comparing weights with the classes that will be traced"
    assert told == [Started(task="classes", label=label), Finished(task="classes")]
    told.clear()
    found = obtain(wanted, unusual, cache, False, told.append)
    assert set(found) == {"text_encoder", "unet"}
    assert told == [
        Started(task="trace text_encoder", label="text_encoder: tracing its graph"),
        Finished(task="trace text_encoder"),
    ]
    (kept,) = cache.iterdir()
    assert kept.name.startswith("clip_text-")
    # The next time it is at hand.
    assert len(obtain(wanted, unusual, cache, False, told.append)["text_encoder"].graph) > 50
    demand_obtainable(wanted, unusual, cache, False, told.append)
    assert len(told) == 2


@pytest.mark.parametrize(
    ("free", "processors", "wanted", "tracers", "memory"),
    [
        (40 * GIB, 8, 4, 4, int(40 * GIB * 0.9) // 4),
        (16 * GIB, 2, 4, 2, int(16 * GIB * 0.9) // 2),
        (100 * GIB, 8, 3, 3, int(100 * GIB * 0.9) // 3),
        (5 * GIB, 8, 4, 2, 4 * GIB),
        (4 * GIB - 1, 8, 4, 1, 4 * GIB),
        (GIB, 8, 4, 1, 4 * GIB),
        (64 * GIB, None, 4, 1, int(64 * GIB * 0.9)),
    ],
)
def test_as_many_are_traced_at_once_as_processors_and_memory_allow(
    free: int,
    processors: int | None,
    wanted: int,
    tracers: int,
    memory: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(module.os, "cpu_count", lambda: processors)
    assert module._tracers(wanted) == tracers
    assert module._memory_of_each(tracers) == memory

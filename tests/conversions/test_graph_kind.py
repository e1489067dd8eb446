"""What of a configuration shapes a graph, and what its weights are stored with."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from conversions.graph_kind import GraphKind, WeightScale


def kind(**changes: Any) -> GraphKind:
    usual: dict[str, Any] = {
        "id": "a",
        "class_name": "A",
        "defaults": {"layers": 2, "sizes": (1, (2, 3)), "vocab_size": 10, "nothing": None},
        "irrelevant": frozenset({"dropout"}),
        **dict.fromkeys(("inputs", "outputs", "create", "wrap"), lambda _: ()),
        "component_class": object,
    }
    return GraphKind(**{**usual, **changes})


def test_only_what_differs_from_the_default_shapes_a_graph() -> None:
    config = {"layers": 3, "dropout": 0.5, "_class_name": "A", "width": 7, "nothing": None, "other": None}
    assert kind().graph_config(config) == {"layers": 3, "width": 7}
    assert list(kind().graph_config({"b": 1, "a": 1, "c": 1})) == ["a", "b", "c"]
    assert kind().graph_config({"layers": 2, "vocab_size": 10}) == {}
    assert kind().graph_config({"vocab_size": 11}) == {"vocab_size": 11}


def test_lists_of_json_are_equal_to_tuples() -> None:
    assert kind().graph_config({"sizes": [1, [2, 3]]}) == {}
    assert kind().graph_config({"sizes": [1, [2, 4]]}) == {"sizes": [1, [2, 4]]}
    assert kind(defaults={"sizes": [1]}).graph_config({"sizes": (1,)}) == {}


def test_a_kind_may_pick_what_is_relevant() -> None:
    picks = kind(relevant=lambda config: {"layers": config["text_config"]["layers"]})
    assert picks.graph_config({"text_config": {"layers": 4}, "width": 7}) == {"layers": 4}


def test_the_first_pattern_in_a_weight_s_name_says_its_factor() -> None:
    scales = (WeightScale(pattern=r"fc2\.weight$", factor=0.5), WeightScale(pattern="fc2", factor=0.25))
    scaled = kind(scales=scales)
    assert scaled.scale_of("layers.0.fc2.weight") == 0.5
    assert scaled.scale_of("layers.0.fc2.bias") == 0.25
    assert scaled.scale_of("layers.0.fc1.weight") == 1.0
    assert kind().scale_of("fc2") == 1.0


def test_the_usual_vocabulary_stands_for_another_one_where_nothing_else_depends_on_it() -> None:
    other = {"layers": 3, "vocab_size": 12}
    tokens = kind(vocabulary="embed.weight")
    assert tokens.with_usual_vocabulary(other) == {"layers": 3, "vocab_size": 10}
    assert other["vocab_size"] == 12
    assert tokens.with_usual_vocabulary({"vocab_size": 10}) is None
    assert tokens.with_usual_vocabulary({"layers": 3}) is None
    assert kind().with_usual_vocabulary(other) is None


def test_a_table_of_tokens_gets_the_rows_of_a_configuration() -> None:
    shapes: dict[str, list[int] | None] = {
        "model.embed.weight": [10, 4],
        "x.embed.weight": None,
        "model.embed.weight.scale": [10, 4],
        "model.other": [10, 4],
    }
    values = [
        ir.Value(name=name, shape=None if shape is None else ir.Shape(shape))
        for name, shape in shapes.items()
    ]
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 18}), ir_version=10)
    kind(vocabulary="embed.weight").resize_vocabulary(model, {"vocab_size": 12})
    found = {name: value.shape for name, value in model.graph.initializers.items()}
    assert found == {**shapes, "model.embed.weight": [12, 4]}


@pytest.mark.parametrize("name", ["renames", "unused", "sensitive", "also", "fields", "scales"])
def test_most_kinds_have_nothing_special(name: str) -> None:
    assert getattr(kind(), name) == ()
    assert (kind().version, kind().variant, kind().vocabulary, kind().quantizable) == (1, "", "", False)
    assert (kind().sizes, kind().traced_sizes, kind().example) == ({}, {}, {})
    assert kind().reference is None
    assert kind().skip_layers is None

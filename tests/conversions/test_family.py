"""Families: their components and parts, which of them a pipeline is, and what may be left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conversions import family as module
from conversions.errors import ConversionError
from conversions.family import (
    ONNX_CLASS,
    Family,
    Part,
    PipelineConfigs,
    all_families,
    class_of_component,
    families_of,
    family_named,
    find_family,
    folders_left_out,
)
from conversions.typed_config import whole
from tests.conversions.test_graph_kind import kind

FIRST = kind(class_name="First", also=("WithAHead",), fields=(whole("layers", 2, 1, 9),))
SECOND = kind(class_name="Second")


def part(name: str, component: str, **changes: Any) -> Part:
    usual: dict[str, Any] = {"name": name, "component": component, "kinds": (SECOND,), "role": "denoiser"}
    return Part(**{**usual, **changes})


def family(**changes: Any) -> Family:
    usual: dict[str, Any] = {
        "name": "made-up",
        "title": "Made up",
        "pipelines": ("MadeUpPipeline",),
        "parts": (
            part("encoder", "text", kinds=(FIRST, SECOND)),
            part("large_encoder", "large_text", optional=True, called="large", tokenizer="large_tokenizer"),
            part("denoiser", "denoiser"),
            part("in", "vae"),
            part("out", "vae", optional=True),
            part("checker", "checker", optional=True),
        ),
        "metadata": (),
        "tokenizers": (),
        "recipe": lambda _: None,
    }
    return Family(**{**usual, **changes})


def configs(index: dict[str, Any] | None = None, **components: Any) -> PipelineConfigs:
    return PipelineConfigs(index=index or {}, components=components, scheduler={})


def test_components_are_named_once_in_the_order_of_work() -> None:
    assert family().components == ("text", "large_text", "denoiser", "vae", "checker")


def test_a_component_may_be_lacking_where_none_of_its_parts_is_needed() -> None:
    found = {name: family().optional(name) for name in family().components}
    assert found == {"text": False, "large_text": True, "denoiser": False, "vae": False, "checker": True}
    called = {name: family().called(name) for name in family().components}
    assert called == {"text": "", "large_text": "large", "denoiser": "", "vae": "", "checker": "checker"}


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["large"], {"large_text", "large_tokenizer"}),
        (["large_text"], {"large_text", "large_tokenizer"}),
        (["checker", "large"], {"checker", "large_text", "large_tokenizer"}),
        (["other"], set()),
        ([""], set()),
        ([], set()),
    ],
)
def test_a_part_is_left_out_with_its_tokenizer(names: list[str], folders: set[str]) -> None:
    assert family().left_out(names) == folders


def test_submodels_are_those_of_the_components_that_are_there() -> None:
    found = family().submodels(configs({"text": ["transformers", "Second"]}, vae={}, text={}))
    assert [(each.name, each.component, each.role) for each in found] == [
        ("encoder", "text", "denoiser"),
        ("in", "vae", "denoiser"),
        ("out", "vae", "denoiser"),
    ]
    assert [each.kind for each in found] == [SECOND, SECOND, SECOND]


@pytest.mark.parametrize(
    ("index", "config", "expected"),
    [
        ({}, {}, FIRST),
        ({}, {"_class_name": "Second"}, SECOND),
        ({}, {"architectures": ["WithAHead"]}, FIRST),
        ({"text": ["transformers", "Second"]}, {"_class_name": "First"}, SECOND),
        ({"text": ["diffusers", ONNX_CLASS]}, {"architectures": ["Second", "First"]}, SECOND),
    ],
)
def test_the_class_of_a_component_decides_its_kind(index: Any, config: Any, expected: Any) -> None:
    (found,) = family().submodels(configs(index, text=config))
    assert found.kind is expected


def test_another_class_is_refused_with_what_is_supported() -> None:
    with pytest.raises(ConversionError) as caught:
        family().submodels(configs(text={"_class_name": "Third"}))
    assert caught.value.code == "component.unsupported"
    assert "'text' is a Third" in caught.value.message
    assert caught.value.hint == "Supported is First or Second."


@pytest.mark.parametrize(
    ("entry", "config", "expected"),
    [
        (["a", "Listed"], {"_class_name": "Own", "architectures": ["First"]}, "Listed"),
        (["a", ONNX_CLASS], {"_class_name": "Own", "architectures": ["First"]}, "Own"),
        (["a"], {"architectures": ["First", "Second"]}, "First"),
        ([None, None], {"_class_name": "Own"}, "Own"),
        ("a", {"architectures": []}, ""),
        (None, {"architectures": "First"}, ""),
    ],
)
def test_where_a_component_s_class_is_said(entry: Any, config: Any, expected: str) -> None:
    assert class_of_component(configs({"text": entry}, text=config), "text") == expected


def test_fields_are_those_that_their_component_knows_or_are_refused_with_their_place() -> None:
    given = configs(text={"layers": None, "width": 3}, denoiser={"layers": "x"}, other={"a": 1})
    found = family().typed(given, "here")
    assert found.components == {
        "text": {"layers": 2, "width": 3},
        "denoiser": {"layers": "x"},
        "other": {"a": 1},
    }
    assert given.components["text"]["layers"] is None
    assert found.index is given.index
    with pytest.raises(ConversionError, match=r"here/text/config\.json") as caught:
        family().typed(configs(text={"layers": "many"}), "here")
    assert caught.value.code == "config.invalid"


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> tuple[Family, ...]:
    """Two families of one pipeline class, told apart by a field, and another."""
    wide = family(name="wide", matches=lambda given: bool(given.index.get("wide")))
    usual = family(name="usual", parts=(part("checker", "checker", optional=True, tokenizer="words"),))
    other = family(name="other", pipelines=("OtherPipeline", "OlderPipeline"))
    monkeypatch.setattr(module, "all_families", lambda: (usual, wide, other))
    return usual, wide, other


def test_a_family_is_found_by_its_class_and_then_by_its_configuration(three: tuple[Family, ...]) -> None:
    usual, wide, other = three
    assert families_of("MadeUpPipeline") == (usual, wide)
    assert find_family(configs({"_class_name": "MadeUpPipeline", "wide": True})) is wide
    assert find_family(configs({"_class_name": "MadeUpPipeline"})) is usual
    assert find_family(configs({"_class_name": "OlderPipeline"})) is other
    assert family_named("wide") is wide


def test_where_none_takes_all_others_the_first_of_the_class_is_meant(
    three: tuple[Family, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, wide, _ = three
    monkeypatch.setattr(module, "all_families", lambda: (wide, replace(wide, name="wider")))
    assert find_family(configs({"_class_name": "MadeUpPipeline"})) is wide


@pytest.mark.usefixtures("three")
def test_a_pipeline_of_no_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConversionError) as caught:
        families_of("MadePipeline")
    assert caught.value.code == "family.unsupported"
    assert caught.value.message == "The checkpoint is a MadePipeline, which cannot be converted yet."
    assert caught.value.hint == (
        "Supported are MadeUpPipeline, OlderPipeline, OtherPipeline; the nearest is MadeUpPipeline."
    )
    with pytest.raises(ConversionError, match="is a pipeline without a name"):
        find_family(configs())
    with pytest.raises(ConversionError) as caught:
        family_named("none")
    assert (caught.value.code, caught.value.hint) == (
        "family.unsupported",
        "Families are usual, wide, other.",
    )
    assert "'none'" in caught.value.message


@pytest.mark.usefixtures("three")
def test_folders_are_left_out_for_all_families_of_a_class() -> None:
    assert folders_left_out("MadeUpPipeline", ["checker"]) == {"checker", "words"}
    assert folders_left_out("MadeUpPipeline", ["large"]) == {"large", "large_text", "large_tokenizer"}
    assert folders_left_out("OtherPipeline", ["checker"]) == {"checker"}
    assert folders_left_out("NoPipeline", ["a", "b"]) == {"a", "b"}


def test_every_family_is_there_once() -> None:
    names = [each.name for each in all_families()]
    assert len(names) == len(set(names)) > 5
    assert all(family_named(name).name == name for name in names)

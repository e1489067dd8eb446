"""Every field that readers of a manifest rely on: a value of another kind is refused by the field's name."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from conversions.errors import ConversionError
from conversions.package.manifest_fields import check_fields, is_inside

SHA256 = "0123456789abcdef" * 4
MANIFEST: dict[str, Any] = {
    "target": "directml",
    "precision": "fp16",
    "checkpoint": {"origin": "owner/name", "sha256": {"a": SHA256}},
    "submodels": {
        "unet": {
            "precision": "int4",
            "quantized": {"precision": "int4", "block": 32, "weights": ["a", "b"]},
        },
        "vae_decoder": {},
    },
    "files": {"unet/model.onnx": {"size_bytes": 0, "sha256": SHA256}},
    "linked": {"unet/model.onnx": {"file": "unet/x.safetensors", "modified_ns": 1}},
    "adapters": [{"name": "a", "weight": 1, "sha256": SHA256}, {"name": "b", "weight": 0.5, "sha256": "x"}],
    "embeddings": [{"name": "a", "token": "<a>", "vectors": 2, "sha256": SHA256}],
    "memory": {"submodels": {"unet": {"device_bytes": 5, "weights_bytes": 3}}},
}
ABSENT = object()


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(MANIFEST)
    place: Any = manifest
    for key in path[:-1]:
        place = place[key]
    if value is ABSENT:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return manifest


FILE = ("files", "unet/model.onnx")
LINK = ("linked", "unet/model.onnx")
QUANTIZED = ("submodels", "unet", "quantized")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("target",), "cpu"),
        (("checkpoint", "sha256"), ABSENT),
        (("linked",), ABSENT),
        (("adapters",), ABSENT),
        (("embeddings",), []),
        (("memory",), ABSENT),
        (("memory", "submodels"), {}),
        (("memory",), {"width": 1}),
        (("submodels", "unet", "precision"), ABSENT),
        (QUANTIZED, ABSENT),
        ((*QUANTIZED, "precision"), "int8"),
        (QUANTIZED, {}),
        (QUANTIZED, {"precision": "anything", "weights": []}),
        ((*FILE, "size_bytes"), 2**63 - 1),
        (("memory", "submodels", "unet", "device_bytes"), 0),
        (("adapters", 1, "weight"), -(2.0**62)),
        ((*LINK, "modified_ns"), -1),
        (("future",), {"anything": None}),
    ],
)
def test_a_manifest_with_what_readers_need_is_taken(path: tuple[Any, ...], value: Any) -> None:
    check_fields(changed(path, value), "m.json")


BAD: list[tuple[tuple[Any, ...], tuple[Any, ...], str]] = [
    (("target",), (None, 3, [], ABSENT), "target"),
    (("precision",), (None, 3, {}, ABSENT), "precision"),
    (("checkpoint",), (None, "x", [], ABSENT), "checkpoint"),
    (("checkpoint", "origin"), (None, 3, [], ABSENT), r"checkpoint\.origin"),
    (("checkpoint", "sha256"), (None, 3, []), r"checkpoint\.sha256"),
    (("submodels",), (None, 3, [], "x", ABSENT), "submodels"),
    (("submodels", "../unet"), ({},), "submodels"),
    (("submodels", "unet.x"), ({},), "submodels"),
    (("submodels", ""), ({},), "submodels"),
    (("submodels", "unet"), (None, 3, [], "x"), r"submodels\.unet"),
    (("submodels", "unet", "precision"), (None, 4, []), r"submodels\.unet\.precision"),
    (QUANTIZED, (None, 4, []), r"submodels\.unet\.quantized"),
    ((*QUANTIZED, "weights"), (None, "ab", [1], ["a", None], {}), r"submodels\.unet\.quantized\.weights"),
    ((*QUANTIZED, "precision"), (None, "fp16", "int5", [], ABSENT), r"submodels\.unet\.quantized\.precision"),
    (("files",), (None, 3, [], ABSENT), "files"),
    (FILE, (None, 3, [], {}), r"files\.unet/model\.onnx"),
    ((*FILE, "size_bytes"), (None, -1, 2**63, 10**400, 1.5, True, "1", ABSENT), r"files\.unet"),
    ((*FILE, "sha256"), (None, 3, SHA256[:-1], SHA256 + "0", SHA256.upper(), ABSENT), r"files\.unet"),
    ((*FILE, "more"), (1,), r"files\.unet"),
    (("files", "../x"), ({"size_bytes": 1, "sha256": SHA256},), "files"),
    (("linked",), (None, 3, []), "linked"),
    (LINK, (None, 3, [], {}), r"linked\.unet"),
    ((*LINK, "file"), (None, 3, ABSENT), r"linked\.unet"),
    ((*LINK, "modified_ns"), (None, 1.5, True, "1", ABSENT), r"linked\.unet"),
    (("linked", "other"), ({"file": "x", "modified_ns": 1},), "linked"),
    (("adapters",), (None, 3, {}, "x", [3], [None], [{}]), "adapters"),
    (("adapters", 0, "name"), (None, 3, ABSENT), "adapters"),
    (
        ("adapters", 1, "weight"),
        (None, "1", True, 10**400, -(10**400), math.inf, math.nan, ABSENT),
        "adapters",
    ),
    (("adapters", 0, "sha256"), (None, 3, ABSENT), "adapters"),
    (("adapters", 0, "more"), (1,), "adapters"),
    (("embeddings", 0, "token"), (None, 3, ABSENT), "embeddings"),
    (("embeddings", 0, "vectors"), (None, 1.5, True, 10**400, ABSENT), "embeddings"),
    (("memory", "submodels"), (None, 3, []), r"memory\.submodels"),
    (("memory", "submodels", "unet"), (None, 3, []), r"memory\.submodels\.unet"),
    (
        ("memory", "submodels", "unet", "device_bytes"),
        (None, 1.5, True, "1", -1, 10**400, ABSENT),
        r"memory\.submodels",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [(path, value, said) for path, values, said in BAD for value in values],
    ids=lambda each: "absent" if each is ABSENT else None,
)
def test_a_field_of_another_kind_is_refused_by_its_name(path: tuple[Any, ...], value: Any, said: str) -> None:
    with pytest.raises(ConversionError, match=rf"^m\.json says {said}") as caught:
        check_fields(changed(path, value), "m.json")
    assert caught.value.code == "package.torn"
    assert caught.value.hint


def test_long_values_are_shown_in_60_characters() -> None:
    for count, shown in ((58, "'" + "x" * 58 + "'"), (59, "'" + "x" * 56 + "...")):
        with pytest.raises(ConversionError) as caught:
            check_fields(changed(("files",), "x" * count), "m.json")
        assert f"files: {shown}; it must be an object." in caught.value.message


@pytest.mark.parametrize("name", ["a", "a/b.json", "a b/ü", "..a", "a..", "a/.hidden", "a\\b", "..."])
def test_names_below_the_folder_are_inside(name: str) -> None:
    assert is_inside(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "../a",
        "a/../../b",
        "a/..",
        "C:a",
        "C:\\a",
        "C:/a",
        "\\a",
        "\\\\host\\share",
        "a\\..\\b",
        "a\0",
    ],
)
def test_names_that_lead_elsewhere_on_any_system_are_not(name: str) -> None:
    assert not is_inside(name)

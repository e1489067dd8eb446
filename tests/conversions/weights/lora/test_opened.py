"""Adapters opened for a model: whose tensors are whose, in which order, and what tells them apart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError
from conversions.family import family_named
from conversions.weights.expression import Expression, Stored, evaluate_range
from conversions.weights.lora.opened import OpenedAdapter, open_all
from conversions.weights.lora.request import AdapterRequest
from conversions.weights.lora.transform import MergeAdapter, MergedAdapter, merged_adapters
from conversions.weights.read_numbers import read_numbers

SD1 = family_named("stable-diffusion")
ONES = np.ones((2, 2), np.float32)


@pytest.fixture
def components(tmp_path: Path) -> dict[str, dict[str, Expression]]:
    """A U-Net of two modules and a text encoder of one; all weights are one."""
    found: dict[str, dict[str, Expression]] = {}
    for name, modules in {"unet": ("a", "b"), "text_encoder": ("text_model.c",)}.items():
        file = f"{name}.safetensors"
        save_file({f"{module}.weight": ONES for module in modules}, tmp_path / file)
        found[name] = {
            key: Stored(tensor=tensor) for key, tensor in read_header(Folder(tmp_path), file).items()
        }
    return found


def adapter(folder: Path, name: str, **amounts: float) -> Path:
    """Write an adapter that adds an amount to all weights of modules."""
    path = folder / f"{name}.safetensors"
    save_file(
        {f"{module.replace('__', '.')}.diff": ONES * amount for module, amount in amounts.items()}, path
    )
    return path


def opened(components: Any, *requests: AdapterRequest, ignore: bool = False) -> list[OpenedAdapter]:
    return open_all(requests, components, SD1, ignore_unmatched=ignore)


def test_each_adapter_has_a_name_of_its_own_and_changes_its_components(
    tmp_path: Path, components: Any
) -> None:
    path = adapter(tmp_path, "style", unet__a=2, text_encoder__text_model__c=3)
    one, two = opened(
        components, AdapterRequest(path=path, weight=0.5), AdapterRequest(path=path, weight=-1.0)
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for place, (each, weight) in enumerate(((one, 0.5), (two, -1.0)), start=1):
        assert each.request == AdapterRequest(path=path, weight=weight)
        assert (each.file, each.sha256, each.notice) == (f"lora/{place}-style.safetensors", digest, "")
        assert each.transforms.keys() == {"unet", "text_encoder"}
        for transform in each.transforms.values():
            assert (transform.order, transform.name) == (place, "style.safetensors")
            assert (transform.sha256, transform.weight) == (digest, weight)
        assert each.transforms["unet"].layers.keys() == {"a"}
        layer = each.transforms["unet"].layers["a"]
        assert {tensor.file for tensor in layer.parts.values()} == {each.file}
    alone = adapter(tmp_path, "alone", unet__b=1)
    (found,) = opened(components, AdapterRequest(path=alone))
    assert found.transforms.keys() == {"unet"}


def test_adapters_add_up_one_after_the_other(tmp_path: Path, components: Any) -> None:
    first, second = adapter(tmp_path, "one", unet__a=2), adapter(tmp_path, "two", unet__a=10, unet__b=1)
    changed = components["unet"]
    paths = {"unet.safetensors": tmp_path / "unet.safetensors"}
    for each in opened(components, AdapterRequest(path=first, weight=0.5), AdapterRequest(path=second)):
        changed = each.transforms["unet"](changed)
        paths[each.file] = each.request.path
    read = read_numbers(paths)
    numbers = {name: evaluate_range(weight, 0, 4, read).tolist() for name, weight in changed.items()}
    assert numbers == {"a.weight": [12.0] * 4, "b.weight": [2.0] * 4}
    before = {name: evaluate_range(each, 0, 4, read).tolist() for name, each in components["unet"].items()}
    assert before == {"a.weight": [1.0] * 4, "b.weight": [1.0] * 4}


def test_what_belongs_to_nothing_is_refused_or_said(tmp_path: Path, components: Any) -> None:
    path = adapter(tmp_path, "style", unet__a=2, unet__nowhere=1)
    with pytest.raises(ConversionError) as caught:
        opened(components, AdapterRequest(path=path))
    assert caught.value.code == "lora.unmatched"
    (found,) = opened(components, AdapterRequest(path=path), ignore=True)
    assert found.notice == f"{path}: left out, as they belong to nothing in this model: unet.nowhere.diff."


def transform(order: int, name: str, **changes: Any) -> MergeAdapter:
    usual = {"order": order, "name": name, "sha256": f"hash of {name}", "weight": 0.5, "layers": {}}
    return MergeAdapter(**{**usual, **changes})


def test_merged_adapters_are_listed_once_in_their_order() -> None:
    given = [transform(2, "b"), "something else", transform(1, "a", weight=2.0), transform(2, "b")]
    found = merged_adapters(given)
    assert found == (
        MergedAdapter(name="a", weight=2.0, sha256="hash of a"),
        MergedAdapter(name="b", weight=0.5, sha256="hash of b"),
    )
    assert merged_adapters([]) == ()


def test_a_conversion_is_told_apart_by_order_file_and_weight() -> None:
    plain = transform(1, "a")
    assert repr(plain) == repr(transform(1, "a", layers={"x": object()}))
    for other in (transform(2, "a"), transform(1, "a", sha256="x"), transform(1, "a", weight=0.25)):
        assert repr(other) != repr(plain)
    with pytest.raises(TypeError):
        MergeAdapter(order=1, name="a", sha256="x", weight=1.0)  # type: ignore[call-arg]

"""Components in a single file: their prefixes, and the tensors behind them."""

from __future__ import annotations

from typing import Any

import pytest

from conversions.single_file_layout import (
    FileComponent,
    FileFacts,
    Select,
    SingleFileLayout,
    SmallFiles,
    no_differences,
)


def component(name: str, *prefixes: str) -> FileComponent:
    return FileComponent(name=name, prefixes=prefixes, marker="in.weight", names=lambda _: Select(prefix=""))


def test_the_first_prefix_with_the_marker_is_the_component_s() -> None:
    unet = component("unet", "model.diffusion_model.", "unet.", "")
    assert unet.prefix_in(frozenset({"unet.in.weight", "model.diffusion_model.in.weight"})) == (
        "model.diffusion_model."
    )
    assert unet.prefix_in(frozenset({"unet.in.weight", "in.weight"})) == "unet."
    assert unet.prefix_in(frozenset({"in.weight", "unet.in.bias"})) == ""
    assert unet.prefix_in(frozenset({"unet.in.bias", "other.in.weight"})) is None


def test_tensors_are_selected_by_their_prefix_and_lose_it() -> None:
    tensors: dict[str, Any] = {"a.b": 1, "a.a.c": 2, "b.a.d": 3, "a": 4}
    assert dict[str, Any](Select(prefix="a.")(tensors)) == {"b": 1, "a.c": 2}
    assert Select(prefix="")(tensors) == tensors


def test_a_layout_knows_its_components_by_name() -> None:
    parts = (component("unet", ""), component("vae", "vae."))
    layout = SingleFileLayout(components=parts, denoiser="unet", recognise=no_differences, small_files=None)
    assert layout.component("vae") is parts[1]
    with pytest.raises(StopIteration):
        layout.component("other")
    # What a family leaves out: nothing differs, nothing is shown by the tensors, nothing is fixed.
    assert layout.recognise({}) == ()
    assert layout.structure({}, {"layers": 3}) == {}
    assert layout.fixed == ()
    assert FileFacts(metadata={}, tensors=frozenset()).prediction_type == ""
    assert SmallFiles(index={}, scheduler={}, components={}, others={}).notice == ""

"""What a plan says before anything moves, and which graph belongs to which kind."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from conversions import graphs
from conversions.checkpoint.folder import open_folder
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.family import all_families
from conversions.graph_kind import GraphKind, TensorSpec
from conversions.options import Options
from conversions.plan import make_plan
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.verification import layerwise


def kinds() -> dict[tuple[str, str], GraphKind]:
    return {
        (kind.id, kind.variant): kind
        for family in all_families()
        for part in family.parts
        for kind in part.kinds
    }


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_verification_is_planned_with_the_bytes_of_the_reference_not_of_the_file(
    dtype: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    half = Path(shutil.copytree(tiny_checkpoint, tmp_path / "half"))
    for path in half.rglob("*.safetensors"):
        tensors = load_file(path)
        save_file(
            {
                name: each.to(getattr(torch, dtype)) if each.is_floating_point() else each
                for name, each in tensors.items()
            },
            path,
        )

    def planned(folder: Path) -> int:
        return make_plan(open_folder(folder), Options(target="cpu"), None).check_ram_bytes

    whole, narrow = planned(tiny_checkpoint), planned(half)
    assert narrow == whole
    elements = max(
        sum(each.size_bytes for each in part.values()) // 4 for part in _tensors_of(tiny_checkpoint).values()
    )
    monkeypatch.setattr(layerwise, "_LARGE_BYTES", 0)
    # A large model is kept as it is stored: 2 bytes for each weight instead of 4.
    assert planned(tiny_checkpoint) == whole
    assert whole - planned(half) == pytest.approx(2 * elements, rel=0.01)


def _tensors_of(folder: Path) -> dict[str, dict[str, StoredTensor]]:
    from conversions.checkpoint.folder import stored_tensors

    opened = open_folder(folder)
    return {name: stored_tensors(opened.storage, part.weights) for name, part in opened.components.items()}


def test_no_two_kinds_share_a_graph_whatever_the_configuration() -> None:
    found = kinds()
    assert len(found) > 10
    by_name: dict[str, tuple[str, str]] = {}
    for identity, kind in found.items():
        for config in ({}, {"hidden_size": 64, "num_hidden_layers": 2, "sample_size": 32}):
            try:
                name = graphs.fingerprint(kind, config)
            except KeyError:  # a kind whose ports need fields of its own
                continue
            assert by_name.setdefault(f"{name} {config}", identity) == identity


def test_a_graph_s_identity_holds_version_variant_and_ports() -> None:
    config = {"hidden_size": 64}
    one = graphs.fingerprint(CLIP_TEXT, config)

    def further(config: object) -> tuple[TensorSpec, ...]:
        return (*CLIP_TEXT.outputs({"hidden_size": 64}), TensorSpec(name="more", dtype="float", shape=(1,)))

    others = {
        graphs.fingerprint(replace(CLIP_TEXT, version=CLIP_TEXT.version + 1), config),
        graphs.fingerprint(replace(CLIP_TEXT, variant="other"), config),
        graphs.fingerprint(replace(CLIP_TEXT, outputs=further), config),
        graphs.fingerprint(CLIP_TEXT, {"hidden_size": 32}),
    }
    assert len(others | {one}) == 5

"""What a plan says before anything moves, and which graph belongs to which kind."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversions import graphs
from conversions.checkpoint.folder import Checkpoint, component_tensors, open_folder
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError
from conversions.family import all_families
from conversions.graph_kind import GraphKind, TensorSpec
from conversions.options import Options
from conversions.package.layout import DATA_FILE
from conversions.plan import (
    ConversionPlan,
    PlannedComponent,
    linkable,
    make_plan,
    planned_graphs,
    wanted_submodels,
)
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.verification import layerwise
from sdsetup.demo import checkpoint_path
from tests.demo_package import demo_package

SUBMODELS = ["text_encoder", "unet", "vae_encoder", "vae_decoder"]


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of the checkpoint that ships, whose weights are all float16 and whose graphs are at hand."""
    return Path(shutil.copytree(checkpoint_path(), tmp_path / "demo"))


def changed(folder: Path, name: str, **fields: Any) -> Path:
    """Change fields of a JSON file; those that are None are removed."""
    path = folder / name
    content = {**json.loads(path.read_text("utf-8")), **fields}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), "utf-8")
    return folder


def plan_of(folder: Path, graph_cache: Path | None = None, **options: Any) -> ConversionPlan:
    return make_plan(open_folder(folder), Options(**options), graph_cache)


def refused(folder: Path, **options: Any) -> ConversionError:
    with pytest.raises(ConversionError) as caught:
        plan_of(folder, **options)
    return caught.value


def test_a_plan_counts_what_is_read_made_and_written(demo: Path) -> None:
    plan = plan_of(demo)
    elements = {"text_encoder": 882_944, "unet": 5_373_060, "vae": 1_028_935}
    files = ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"]
    assert plan.components == tuple(
        PlannedComponent(
            name=name,
            submodels=dict.fromkeys((each for each in SUBMODELS if each.startswith(name)), "shipped"),
            files=(f"{file}.safetensors",),
            source_bytes=2 * count,
            package_bytes=2 * count,
            copied_bytes=0,
        )
        for (name, count), file in zip(elements.items(), files, strict=True)
    )
    assert (plan.origin, plan.commit, plan.family, plan.opset) == ("demo", "", "stable-diffusion", 18)
    assert (plan.adapters, plan.embeddings) == ((), ())
    assert plan.source_bytes == plan.package_bytes == 2 * sum(elements.values())
    assert plan.copied_bytes == 0
    assert plan.submodels == tuple(SUBMODELS)
    assert plan.to_trace == ()
    assert plan.ram_bytes == 900 * 2**20
    # The reference of the largest component is float32.
    assert plan.check_ram_bytes == 1600 * 2**20 + 4 * max(elements.values())


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({"precision": "fp32"}, 4),
        ({"copy": True}, 2),
        ({"precision": "int8"}, 2),
        ({"precisions": {"unet": "int4"}}, 2),
    ],
)
def test_bytes_are_copied_where_a_file_cannot_be_used_as_it_is(
    demo: Path, options: dict[str, Any], width: int
) -> None:
    text, unet, vae = plan_of(demo, **options).components
    assert unet.copied_bytes == unet.package_bytes == unet.source_bytes // 2 * width
    one_of_many = "precisions" in options
    assert text.copied_bytes == (0 if one_of_many else text.package_bytes)
    # Quantising leaves the autoencoder, which has no kind that it could be done to.
    linked = one_of_many or options.get("precision") == "int8"
    assert vae.copied_bytes == (0 if linked else vae.package_bytes)


def test_a_component_of_two_precisions_has_both_and_is_counted_as_the_larger(demo: Path) -> None:
    (*_, vae) = plan_of(demo, precisions={"vae_decoder": "fp32"}).components
    assert vae.package_bytes == vae.copied_bytes == 2 * vae.source_bytes


@pytest.mark.parametrize(
    ("precisions", "nothing"),
    [({}, True), ({"vae_decoder": "fp32"}, False), ({"vae_encoder": "fp32"}, False)],
)
def test_no_more_is_written_than_was_planned(
    demo: Path, tmp_path: Path, precisions: dict[str, Any], nothing: bool
) -> None:
    plan = plan_of(demo, precisions=precisions, target="cpu")
    made = demo_package(tmp_path / "package", open_folder(demo), precisions=precisions)
    written = [each.stat().st_size for each in made.folder.glob(f"*/{DATA_FILE}")]
    assert (sum(written) == 0) == nothing
    assert sum(written) <= plan.copied_bytes


def test_a_plan_is_plain_data_with_its_sums(demo: Path) -> None:
    plan = plan_of(demo, precision="fp32")
    document = json.loads(json.dumps(plan.document()))
    assert document["options"]["precision"] == "fp32"
    assert document["components"][2]["submodels"] == {"vae_encoder": "shipped", "vae_decoder": "shipped"}
    sums = {name: document[name] for name in ("source_bytes", "package_bytes", "copied_bytes")}
    assert sums == {
        "source_bytes": plan.source_bytes,
        "package_bytes": 2 * plan.source_bytes,
        "copied_bytes": 2 * plan.source_bytes,
    }


def test_a_plan_s_fingerprint_tells_packages_apart(demo: Path) -> None:
    def print_of(folder: Path = demo, commit: str = "", **options: Any) -> str:
        opened = open_folder(folder, origin="any", commit=commit)
        return make_plan(opened, Options(**options), None).fingerprint

    first = print_of()
    assert print_of() == first
    assert len(first) == 64
    choices: list[dict[str, Any]] = [
        {"precision": "fp32"},
        {"target": "cuda"},
        {"scheduler_class": "EulerDiscreteScheduler"},
        {"precisions": {"unet": "fp32"}},
        {"precisions": {"text_encoder": "fp32"}},
        {"copy": True},
        {"commit": "abc"},
    ]
    found = [print_of(**choice) for choice in choices]
    # Equal choices in another order are the same.
    both = {"unet": "fp32", "vae_decoder": "fp32"}
    assert print_of(precisions=both) == print_of(precisions=dict(reversed(both.items())))
    # A safety checker that is not there makes no difference.
    assert print_of(safety_checker=False) == first
    found.append(print_of(changed(demo, "scheduler/scheduler_config.json", beta_start=0.001)))
    found.append(print_of(changed(demo, "model_index.json", _diffusers_version="0.1")))
    found.append(print_of(changed(demo, "text_encoder/config.json", layer_norm_eps=1e-3)))
    weights = demo / "vae/diffusion_pytorch_model.safetensors"
    os.utime(weights, (1_000_000_000, 1_000_000_000))
    found.append(print_of())
    assert len({first, *found}) == 1 + len(found)


def test_a_precision_of_a_submodel_that_is_not_there_is_refused_by_name(demo: Path) -> None:
    error = refused(demo, precisions={"unett": "fp32", "a": "fp16", "unet": "fp32"})
    assert error.code == "plan.unknown_submodel"
    assert error.message == "There is no submodel a, unett in this checkpoint."
    assert error.hint == f"Its submodels are {', '.join(SUBMODELS)}."


def test_a_u_net_of_another_pipeline_is_refused(demo: Path) -> None:
    error = refused(changed(demo, "unet/config.json", in_channels=7))
    assert error.code == "component.unsupported"
    assert "7 input channels" in error.message


def with_token(folder: Path, place: int) -> Path:
    added = {str(place): {"content": "<cat>", "special": False}}
    return changed(folder, "tokenizer/tokenizer_config.json", added_tokens_decoder=added)


def test_a_token_without_an_embedding_is_refused(demo: Path) -> None:
    rows = json.loads((demo / "text_encoder/config.json").read_text("utf-8"))["vocab_size"]
    error = refused(with_token(demo, rows))
    assert error.code == "tokenizer.no_embedding"
    assert error.message == (
        f"tokenizer has the added token <cat>, for which the text encoder has no embedding: it has {rows:,}."
    )


def test_weights_that_a_graph_lacks_are_missed_when_planning(demo: Path) -> None:
    shutil.copy(demo / "text_encoder/model.safetensors", demo / "vae/diffusion_pytorch_model.safetensors")
    assert refused(demo).code == "weights.missing"


def test_what_must_be_traced_is_named(demo: Path, tmp_path: Path) -> None:
    changed(demo, "text_encoder/config.json", layer_norm_eps=1e-3)
    cache = tmp_path / "cache"
    plan = plan_of(demo, cache)
    assert plan.to_trace == ("text_encoder",)
    opened = open_folder(demo)
    assert planned_graphs(opened, Options(), cache) is None
    graphs.keep(
        graphs.pack(_text_graph(checkpoint_path())),
        CLIP_TEXT,
        opened.config_of(opened.submodels[0]),
        cache,
    )
    assert plan_of(demo, cache).components[0].submodels == {"text_encoder": "cached"}
    found = planned_graphs(opened, Options(), cache)
    assert found is not None
    assert list(found.models) == SUBMODELS


def _text_graph(folder: Path) -> Any:
    opened = open_folder(folder)
    return graphs.find(opened.submodels[0].kind, opened.config_of(opened.submodels[0]), None)


def test_planned_graphs_are_those_that_the_target_gets(demo: Path) -> None:
    found = planned_graphs(open_folder(demo), Options(precision="int8", target="directml"), None)
    assert found is not None
    assert dict(found.roles) == {
        "text_encoder": "text",
        "unet": "denoiser",
        "vae_encoder": "encoder",
        "vae_decoder": "decoder",
    }
    operators = {name: {node.op_type for node in model.graph} for name, model in found.models.items()}
    assert "MatMulNBits" in operators["unet"]
    assert "GroupNorm" in operators["vae_decoder"]
    assert found.recipe.native.width == 128
    assert all(model.graph.name == name for name, model in found.models.items())


def test_a_safety_checker_is_left_out_where_it_is_not_wanted(demo: Path) -> None:
    def names(opened: Checkpoint, **options: bool) -> list[str]:
        return [each.name for each in wanted_submodels(opened, Options(**options))]

    opened = open_folder(demo)
    with_checker = replace(
        opened, submodels=(*opened.submodels, replace(opened.submodels[0], name="checker", role="safety"))
    )
    assert names(with_checker) == [*SUBMODELS, "checker"]
    assert names(with_checker, safety_checker=False) == SUBMODELS


def test_files_are_linked_where_a_package_can_use_them_as_they_are(demo: Path) -> None:
    opened = open_folder(demo)
    (unet,) = (each for each in opened.submodels if each.name == "unet")
    tensors = component_tensors(opened.storage, opened.components["unet"])

    def links(**options: Any) -> set[str]:
        return linkable(opened, tensors, Options(**options), [unet])

    assert links() == {"unet/diffusion_pytorch_model.safetensors"}
    assert links(precisions={"vae_decoder": "int4"}) == links()
    assert links(copy=True) == links(precision="int4") == links(precision="fp32") == set()


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

"""Converting a checkpoint whose residual stream deviates more than DirectML's float16 norms can take."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

from conversions import graphs
from conversions.checkpoint.folder import open_folder
from conversions.conversion import Checks, Converted, convert
from conversions.events import Event, Notice, Started, ignore
from conversions.options import Options
from conversions.passes.adapt import adapt
from conversions.plan import make_plan
from conversions.providers.devices import CPU
from conversions.shape_inference import infer_shapes

pytestmark = pytest.mark.torch

Make = Callable[..., Converted]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The U-Net's first convolution gives values of a deviation of some 600, far below 65,504."""
    folder = tmp_path_factory.mktemp("checkpoints") / "deviating"
    shutil.copytree(tiny_checkpoint, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"] *= np.float32(1000)
    save_file(tensors, path)
    return folder


@pytest.fixture(scope="module")
def make(graph_cache: Path) -> Make:
    def make(
        source: Path, output: Path, listener: Callable[[Event], None] = ignore, **rest: Any
    ) -> Converted:
        opened = open_folder(source)
        checks = rest.pop("checks", Checks(device=CPU))
        plan = make_plan(opened, Options(**rest), graph_cache)
        return convert(
            plan,
            opened,
            output,
            tool_version="test",
            graph_cache=graph_cache,
            checks=checks,
            listener=listener,
        )

    return make


def kept(converted: Converted) -> dict[str, Any]:
    submodels: Mapping[str, Any] = converted.package.manifest["submodels"]
    return {name: entry["kept_fp32"]["nodes"] for name, entry in submodels.items() if "kept_fp32" in entry}


def norm_types(graph: Path) -> dict[str, ir.DataType | None]:
    """The type that each norm of a package computes in."""
    model = ir.load(graph)
    infer_shapes(model)
    norms = [node for node in model.graph if node.op_type in ("GroupNorm", "LayerNormalization")]
    return {str(node.name): node.inputs[0].dtype for node in norms if node.inputs[0] is not None}


def test_for_directml_just_the_norms_that_deviate_are_kept(
    checkpoint: Path, make: Make, tmp_path: Path
) -> None:
    notices: list[str] = []

    converted = make(
        checkpoint,
        tmp_path / "package",
        listener=lambda event: notices.append(event.text) if isinstance(event, Notice) else None,
    )

    assert set(kept(converted)) == {"unet"}
    nodes = kept(converted)["unet"]
    assert {entry["operator"] for entry in nodes} == {"GroupNorm"}
    assert all(128 < entry["largest"] < 5000 for entry in nodes)
    assert nodes[0]["layer"] == "down_blocks.0.resnets.0.norm1"
    assert nodes[0]["reason"].startswith("normalises values of a standard deviation up to ")
    types = norm_types(converted.package.graph("unet"))
    wide = {name for name, dtype in types.items() if dtype is ir.DataType.FLOAT}
    assert wide == {entry["node"] for entry in nodes}
    assert 0 < len(wide) < len(types)
    assert converted.report is not None
    assert converted.report.passed
    assert any("unet: " in text and "normalises values" in text for text in notices)


@pytest.mark.robustness  # half a minute
def test_for_a_provider_that_squares_in_float32_no_norm_is_kept(
    checkpoint: Path, make: Make, tmp_path: Path
) -> None:
    tasks: list[str] = []

    converted = make(
        checkpoint,
        tmp_path / "package",
        target="cuda",
        listener=lambda event: tasks.append(event.task) if isinstance(event, Started) else None,
    )

    assert kept(converted) == {}
    assert not [task for task in tasks if task.startswith("range")]


def test_where_nothing_is_measured_every_norm_is_kept(
    tiny_checkpoint: Path, make: Make, tmp_path: Path
) -> None:
    converted = make(tiny_checkpoint, tmp_path / "package", checks=None)

    assert set(kept(converted)) == set(converted.package.manifest["submodels"])
    for name, nodes in kept(converted).items():
        types = norm_types(converted.package.graph(name))
        assert set(types.values()) == {ir.DataType.FLOAT}
        assert {entry["node"] for entry in nodes} == set(types)
        assert {entry["largest"] for entry in nodes} == {None}
        assert "was not measured" in nodes[0]["reason"]


@pytest.mark.parametrize("options", [Options(target="cuda"), Options(precision="fp32")], ids=str)
def test_but_not_for_another_provider_and_not_where_all_is_float32(
    options: Options, tiny_checkpoint: Path, graph_cache: Path
) -> None:
    opened = open_folder(tiny_checkpoint)
    for submodel in opened.submodels:
        config = opened.config_of(submodel)
        model = graphs.find(submodel.kind, config, graph_cache)
        assert model is not None
        sizes = opened.recipe.sizes(submodel.role, opened.recipe.native)
        assert adapt(model, submodel, config, options, sizes, None) == ()


@pytest.mark.robustness
def test_a_run_that_measured_nothing_leaves_nothing_for_one_that_measures(
    tiny_checkpoint: Path, make: Make, tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Started) and event.task == "vae":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tiny_checkpoint, tmp_path / "package", checks=None, listener=stop)
    converted = make(tiny_checkpoint, tmp_path / "package")

    assert kept(converted) == {}

"""Converting a checkpoint whose activations leave float16's range: just those layers stay in float32."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

from conversions.checkpoint.folder import open_folder
from conversions.conversion import Checks, Converted, convert
from conversions.events import Event, Notice, Started, ignore
from conversions.options import Options
from conversions.package.layout import record
from conversions.passes.expand_attention import expand_attention
from conversions.passes.expand_fused_matmul import expand_fused_matmul
from conversions.passes.expand_group_norm import expand_group_norm
from conversions.passes.upcast_to_fp32 import upcast_to_fp32
from conversions.plan import make_plan
from conversions.providers.devices import CPU as HOST
from tests.conversions.graphs_for_tests import psnr, run_by_definition, run_on_cpu

pytestmark = pytest.mark.torch

CPU = Checks(device=HOST)

# Where SDXL's decoder and SD 2.1's U-Net leave float16's range: a residual block, and attention's scores.
DECODER_LAYER = "decoder.up_blocks.2.resnets.0.conv2"
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
GROWN = {
    "vae": {f"{DECODER_LAYER}.weight": 3e5},
    "unet": {f"{ATTENTION}.to_q.weight": 300, f"{ATTENTION}.to_k.weight": 300},
}


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "grown"
    shutil.copytree(tiny_checkpoint, folder)
    for component, factors in GROWN.items():
        path = folder / component / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        for name, factor in factors.items():
            tensors[name] *= np.float32(factor)
        save_file(tensors, path)
    return folder


@pytest.fixture(scope="module")
def make(graph_cache: Path) -> Callable[..., Converted]:
    def make(source: Path, output: Path, **rest: Any) -> Converted:
        opened = open_folder(source)
        checks, listener = rest.pop("checks", CPU), rest.pop("listener", ignore)
        plan = make_plan(opened, Options(**{"target": "cpu", **rest}), graph_cache)
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


@pytest.fixture(scope="module", params=["cpu", pytest.param("directml", marks=pytest.mark.robustness)])
def converted(
    request: pytest.FixtureRequest,
    checkpoint: Path,
    make: Callable[..., Converted],
    tmp_path_factory: pytest.TempPathFactory,
) -> Converted:
    return make(checkpoint, tmp_path_factory.mktemp("packages") / request.param, target=request.param)


def kept(converted: Converted) -> dict[str, Mapping[str, Any]]:
    submodels = converted.package.manifest["submodels"]
    return {name: entry["kept_fp32"] for name, entry in submodels.items() if "kept_fp32" in entry}


def files_of(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): record(path).sha256 for path in paths}


def loaded(graph: Path) -> ir.Model:
    """A graph in operators that the definition knows, with its weights in memory."""
    model = ir.from_proto(onnx.load(graph))
    expand_attention(model)
    expand_group_norm(model)
    expand_fused_matmul(model)
    return model


def in_float32(graph: Path, feeds: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    model = loaded(graph)
    upcast_to_fp32(model)
    return run_on_cpu(model, {name: value.astype(np.float32) for name, value in feeds.items()})[0]


def as_defined(graph: Path, feeds: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """What a GPU computes: ONNX Runtime's CPU provider computes float16 in float32 and never overflows."""
    with np.errstate(all="ignore"):
        return run_by_definition(loaded(graph), feeds)[0]


def test_only_what_overflows_is_kept_and_the_package_is_the_same_model(converted: Converted) -> None:
    assert set(kept(converted)) == {"unet", "vae_decoder"}
    (attention,) = kept(converted)["unet"]["nodes"]
    assert attention["operator"] == "MultiHeadAttention"
    assert attention["layer"].startswith(ATTENTION)
    assert attention["largest"] > 65504
    assert attention["reason"].startswith("has scores up to ")
    decoder = kept(converted)["vae_decoder"]
    assert decoder["limit"] == 65504
    assert decoder["nodes"][0]["layer"] == DECODER_LAYER
    assert decoder["nodes"][0]["reason"].endswith("; float16 ends at 65504")
    assert len(decoder["nodes"]) < converted.package.manifest["submodels"]["vae_decoder"]["nodes"] / 5
    assert converted.report is not None
    assert all(each.parity.psnr_db >= 40 for each in converted.report.submodels if each.parity)


def test_only_the_kept_layers_weights_are_float32(converted: Converted) -> None:
    layers = {entry["layer"] for entry in kept(converted)["vae_decoder"]["nodes"]}
    initializers = ir.load(converted.package.graph("vae_decoder")).graph.initializers
    wide = {name for name, value in initializers.items() if value.dtype is ir.DataType.FLOAT and "." in name}
    assert f"{DECODER_LAYER}.weight" in wide
    assert {name.rpartition(".")[0] for name in wide} <= layers


@pytest.mark.parametrize(
    ("submodel", "feeds"),
    [
        ("vae_decoder", {"latent_sample": (1, 4, 4, 6)}),
        ("unet", {"sample": (1, 4, 8, 4), "timestep": (1,), "encoder_hidden_states": (1, 9, 32)}),
    ],
)
def test_without_it_a_device_that_computes_in_float16_would_show_nothing(
    submodel: str,
    feeds: dict[str, tuple[int, ...]],
    converted: Converted,
    checkpoint: Path,
    make: Callable[..., Converted],
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(1)
    inputs = {
        name: random.standard_normal(shape).astype(np.float32 if name == "timestep" else np.float16)
        for name, shape in feeds.items()
    }
    target = converted.package.manifest["target"]
    plain = make(checkpoint, tmp_path / "plain", target=target, checks=None).package.graph(submodel)
    safe = converted.package.graph(submodel)
    expected = in_float32(plain, inputs)

    assert not np.isfinite(as_defined(plain, inputs)).all()
    assert psnr(expected, as_defined(safe, inputs)) >= 40


@pytest.mark.robustness
def test_a_checkpoint_that_stays_in_range_keeps_nothing_and_no_byte_changes(
    tiny_checkpoint: Path, tiny_package: Path, make: Callable[..., Converted], tmp_path: Path
) -> None:
    converted = make(tiny_checkpoint, tmp_path / "package")

    assert kept(converted) == {}
    assert files_of(converted.package.folder) == files_of(tiny_package)


@pytest.mark.robustness
def test_nothing_is_measured_where_nothing_is_float16(
    checkpoint: Path, make: Callable[..., Converted], tmp_path: Path
) -> None:
    events: list[Event] = []
    converted = make(checkpoint, tmp_path / "package", precision="fp32", listener=events.append)

    assert kept(converted) == {}
    assert not [event for event in events if isinstance(event, Started) and event.task.startswith("range")]


@pytest.mark.robustness
@pytest.mark.parametrize("stopped_at", ["files", "range vae_decoder", "second vae"])
def test_a_run_that_is_stopped_on_the_way_is_finished_by_the_next(
    stopped_at: str, checkpoint: Path, make: Callable[..., Converted], tmp_path: Path
) -> None:
    seen: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, Started):
            seen.append(event.task)
            if f"{'second ' if seen.count(event.task) > 1 else ''}{event.task}" == stopped_at:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(checkpoint, tmp_path / "package", listener=stop)
    notices: list[str] = []
    converted = make(
        checkpoint,
        tmp_path / "package",
        listener=lambda event: notices.append(event.text) if isinstance(event, Notice) else None,
    )

    assert set(kept(converted)) == {"unet", "vae_decoder"}
    said = [text for text in notices if text.startswith("vae_decoder") and DECODER_LAYER in text]
    assert len(said) == (0 if stopped_at == "files" else 1)

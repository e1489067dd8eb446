"""Tensors that the reference loader ignores are ignored with a notice; wrong ones stay errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conversions.checkpoint.folder import open_folder
from conversions.conversion import Checks, Converted, convert
from conversions.errors import ConversionError
from conversions.events import Event, Notice
from conversions.options import Options
from conversions.plan import make_plan
from conversions.providers.devices import CPU

pytestmark = pytest.mark.torch

TEXT = "text_encoder/model.safetensors"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
Tensors = dict[str, np.ndarray]


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy without the safety checker, which is not looked at here."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["safety_checker"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    return folder


def edit(path: Path, change: Callable[[Tensors], Tensors]) -> None:
    save_file(change(load_file(path)), path)


@pytest.fixture
def run(graph_cache: Path, tmp_path: Path) -> Callable[..., tuple[Converted, list[str]]]:
    def run(source: Path, *, verify: bool = False) -> tuple[Converted, list[str]]:
        notices: list[str] = []

        def listen(event: Event) -> None:
            if isinstance(event, Notice):
                notices.append(event.text)

        opened = open_folder(source)
        plan = make_plan(opened, Options(target="cpu", precision="fp32"), graph_cache)
        converted = convert(
            plan,
            opened,
            tmp_path / "package",
            tool_version="test",
            graph_cache=graph_cache,
            checks=Checks(device=CPU) if verify else None,
            listener=listen,
        )
        return converted, notices

    return run


@pytest.mark.robustness  # a conversion a case
def test_what_the_libraries_ignore_is_ignored_with_one_notice_each(
    checkpoint: Path, run: Callable[..., tuple[Converted, list[str]]]
) -> None:
    """Fewer layers (clip skip), a projection, LoRA keys, empty tensors, buffers: equal to PyTorch's."""
    config = checkpoint / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "num_hidden_layers": 1}), "utf-8")
    edit(
        checkpoint / TEXT,
        lambda old: (
            {f"text_model.{name}": value for name, value in old.items()}
            | {"text_model.embeddings.position_ids": np.arange(77, dtype=np.int64)[None]}
            | {"text_projection.weight": np.ones((32, 32), np.float32)}
        ),
    )
    lora = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"
    edit(
        checkpoint / UNET,
        lambda old: (
            {**old, lora: np.ones((4, 32), np.float32), "ema.decay": np.array(7, np.int32)}
            | {"conv_extra.weight": np.empty((0, 3), np.float32)}
        ),
    )
    converted, notices = run(checkpoint, verify=True)
    assert converted.report is not None
    assert converted.report.passed
    text, unet = sorted(notice for notice in notices if "not be used" in notice)
    assert text.startswith("text_encoder: 17 tensors (")
    assert "encoder.layers.1." in text
    assert "position_ids" not in text
    for name in (lora, "ema.decay", "conv_extra.weight"):
        assert name in unet
    assert unet.startswith("unet: 3 tensors (")


def test_a_checkpoint_without_surplus_gives_no_notice(
    checkpoint: Path, run: Callable[..., tuple[Converted, list[str]]]
) -> None:
    _, notices = run(checkpoint)
    assert not [notice for notice in notices if "not be used" in notice]


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda old: {each: value for each, value in old.items() if each != name}


WRONG: dict[str, tuple[str, Callable[[Tensors], Tensors], str, str]] = {
    "missing": (UNET, without("conv_in.weight"), "weights.missing", "conv_in.weight"),
    "missing, another instead": (
        UNET,
        lambda old: {**without("conv_in.weight")(old), "conv_inn.weight": old["conv_in.weight"]},
        "weights.missing",
        "conv_inn.weight",
    ),
    "empty": (
        UNET,
        lambda old: {**old, "conv_in.bias": np.empty((0,), np.float32)},
        "weights.shape",
        "conv_in.bias",
    ),
    "another shape": (
        UNET,
        lambda old: {**old, "conv_in.bias": np.zeros(33, np.float32)},
        "weights.shape",
        "conv_in.bias",
    ),
    "two names of one weight": (
        TEXT,
        lambda old: {**old, "text_model.final_layer_norm.bias": old["final_layer_norm.bias"] + 1},
        "weights.ambiguous",
        "text_model.final_layer_norm.bias",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_libraries_would_not_load_stays_an_error(
    case: str, checkpoint: Path, run: Callable[..., tuple[Converted, list[str]]], tmp_path: Path
) -> None:
    file, change, code, name = WRONG[case]
    edit(checkpoint / file, change)
    with pytest.raises(ConversionError) as caught:
        run(checkpoint)
    assert caught.value.code == code
    assert name in caught.value.message
    assert not (tmp_path / "package").exists()

"""What cannot be used is refused while planning, by name, before a byte of the weights moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conversions.checkpoint.folder import open_folder
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.options import Options
from sdsetup.bootstrap.command_name import quoted
from sdsetup.checkpoint_source import CheckpointRequest
from sdsetup.cli.app import main
from sdsetup.errors import SetupError
from sdsetup.workflow import ConvertRequest, convert_model, plan_conversion

pytestmark = pytest.mark.torch


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **fields}), "utf-8")


def plan(checkpoint: Path, **options: Any) -> None:
    request = ConvertRequest(
        checkpoint_request=CheckpointRequest(model=str(checkpoint)), options=Options(target="cpu", **options)
    )
    plan_conversion(request, ignore)


def replace_text_encoder(checkpoint: Path) -> None:
    change(checkpoint / "model_index.json", text_encoder=["transformers", "BertModel"])


def instruct_pix2pix(checkpoint: Path) -> None:
    change(checkpoint / "model_index.json", _class_name="StableDiffusionInstructPix2PixPipeline")
    change(checkpoint / "unet" / "config.json", in_channels=8)


def instruct_pix2pix_of_xl(checkpoint: Path) -> None:
    change(checkpoint / "model_index.json", _class_name="StableDiffusionXLInstructPix2PixPipeline")


def replace_vae(checkpoint: Path) -> None:
    change(checkpoint / "model_index.json", vae=["diffusers", "AutoencoderDC"])


def other_tokenizer(checkpoint: Path) -> None:
    change(checkpoint / "tokenizer" / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")


def no_tokenizer(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "tokenizer")


def unknown_scheduler(checkpoint: Path) -> None:
    change(checkpoint / "scheduler" / "scheduler_config.json", _class_name="SASolverScheduler")


def no_scheduler(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "scheduler")


def junk_scheduler(checkpoint: Path) -> None:
    change(checkpoint / "scheduler" / "scheduler_config.json", beta_start="small")


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "InstructPix2Pix": (instruct_pix2pix, "StableDiffusionInstructPix2PixPipeline"),
    "InstructPix2Pix of XL": (instruct_pix2pix_of_xl, "StableDiffusionXLInstructPix2PixPipeline"),
    "a text encoder of another class": (replace_text_encoder, "BertModel"),
    "an autoencoder of another class": (replace_vae, "AutoencoderDC"),
    "a tokenizer of another class": (other_tokenizer, "LlamaTokenizer"),
    "no tokenizer": (no_tokenizer, "tokenizer"),
    "a scheduler that is not supported": (unknown_scheduler, "SASolverScheduler"),
    "no scheduler": (no_scheduler, "has no scheduler/scheduler_config.json"),
    "a field of the scheduler that is no number": (junk_scheduler, "beta_start"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name_when_planning(name: str, checkpoint: Path) -> None:
    spoil, said = REFUSED[name]
    spoil(checkpoint)
    with pytest.raises((SetupError, ConversionError)) as caught:
        plan(checkpoint)
    assert said in caught.value.message


def test_a_dry_run_says_it_too_and_names_the_option(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown_scheduler(checkpoint)
    assert main(["convert", str(checkpoint), "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert "SASolverScheduler" in said
    assert "--scheduler" in said


def test_the_option_puts_another_scheduler_into_the_package(
    checkpoint: Path, tmp_path: Path, graph_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdsetup import workflow

    monkeypatch.setattr(workflow, "graph_cache", lambda: graph_cache)
    unknown_scheduler(checkpoint)
    output = tmp_path / "package"
    convert_model(
        ConvertRequest(
            checkpoint_request=CheckpointRequest(model=str(checkpoint)),
            options=Options(target="cpu", scheduler_class="UniPCMultistepScheduler"),
            output=output,
            verify=False,
        ),
        ignore,
    )
    written = json.loads((output / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    assert written["_class_name"] == "UniPCMultistepScheduler"
    assert written["beta_end"] == open_folder(checkpoint).scheduler["beta_end"]
    index = json.loads((output / "model_index.json").read_text("utf-8"))
    assert index["scheduler"] == ["diffusers", "UniPCMultistepScheduler"]


@pytest.mark.parametrize("channels", [8, 16])
def test_a_u_net_for_another_pipeline_is_told_before_it_is_used(channels: int, checkpoint: Path) -> None:
    change(checkpoint / "unet" / "config.json", in_channels=channels)
    with pytest.raises(ConversionError) as caught:
        plan(checkpoint)
    assert f"{channels} input channels" in caught.value.message


def test_a_checkpoint_without_scheduler_is_refused_also_where_one_is_named(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "scheduler")
    for wanted in ("", "DDIMScheduler"):
        with pytest.raises(SetupError, match="has no scheduler/scheduler_config") as caught:
            plan(checkpoint, scheduler_class=wanted)
        assert caught.value.code == "scheduler.missing"


def test_a_flow_scheduler_of_a_model_that_takes_noise_out_is_refused(checkpoint: Path) -> None:
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    (checkpoint / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(SetupError, match="learned to take noise out") as caught:
        plan(checkpoint)
    assert caught.value.code == "scheduler.unsupported"


def test_an_added_token_without_embedding_is_refused(checkpoint: Path) -> None:
    rows = json.loads((checkpoint / "text_encoder" / "config.json").read_text("utf-8"))["vocab_size"]
    (checkpoint / "tokenizer" / "added_tokens.json").write_text(json.dumps({"<cat-toy>": rows + 100}))
    with pytest.raises(ConversionError, match="<cat-toy>") as caught:
        plan(checkpoint)
    assert caught.value.code == "tokenizer.no_embedding"


def pickle_unet(checkpoint: Path) -> None:
    import torch
    from safetensors.torch import load_file

    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()


def test_inspect_takes_the_option_that_its_hint_names(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pickle_unet(checkpoint)
    assert main(["inspect", str(checkpoint)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "with --allow-pickle." in said
    assert "option of" not in said
    assert main(["inspect", str(checkpoint), "--allow-pickle"]) == 0
    assert f"sdsetup convert {checkpoint} --allow-pickle" in " ".join(capsys.readouterr().err.split())


def test_a_verb_without_the_option_that_a_hint_names_says_whose_it_is(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pickle_unet(checkpoint)
    assert main(["install", str(checkpoint), "--yes"]) == 1
    assert "--allow-pickle is an option of sdsetup convert." in " ".join(capsys.readouterr().err.split())


def test_t5_that_a_model_does_not_have_cannot_be_left_out(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(checkpoint), "--dry-run", "--target", "cpu", "--drop-t5"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "Stable Diffusion 1.x has no part t5" in said
    assert "Leave out --drop-t5." in said


def test_of_a_package_it_is_said_that_it_is_one(
    tiny_package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(tiny_package), "--dry-run"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"{tiny_package} is a package already, made of tiny for cpu." in said
    assert f"sdsetup generate {quoted(str(tiny_package))}" in said


@pytest.mark.parametrize("verb", [["generate"], ["verify"], ["smoke-test"], ["benchmark"]], ids=" ".join)
def test_for_a_file_of_a_package_its_folder_is_named(
    verb: list[str], tiny_package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = ["a cat"] if verb == ["generate"] else []
    assert main([*verb, str(tiny_package / "unet" / "model.onnx"), *prompt]) == 1
    assert f"Give the package's folder: {tiny_package}" in " ".join(capsys.readouterr().err.split())


def reshape(checkpoint: Path, component: str, tensor: str) -> None:
    from safetensors.torch import load_file, save_file

    (weights,) = (checkpoint / component).glob("*.safetensors")
    tensors = load_file(weights)
    tensors[tensor] = tensors[tensor][..., :-1].clone()
    save_file(tensors, weights)


MISSHAPEN = {"unet": "conv_in.weight", "vae": "decoder.conv_in.weight"}


@pytest.mark.parametrize("component", MISSHAPEN)
def test_a_tensor_of_another_shape_is_refused_when_planning(
    component: str, checkpoint: Path, graph_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdsetup import workflow

    monkeypatch.setattr(workflow, "graph_cache", lambda: graph_cache)
    reshape(checkpoint, component, MISSHAPEN[component])
    with pytest.raises(ConversionError, match=MISSHAPEN[component]) as caught:
        plan(checkpoint)
    assert caught.value.code == "weights.shape"


def test_a_missing_tensor_is_refused_when_planning(
    checkpoint: Path, graph_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    from sdsetup import workflow

    monkeypatch.setattr(workflow, "graph_cache", lambda: graph_cache)
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: each for name, each in load_file(weights).items() if name != "conv_out.bias"}, weights)
    with pytest.raises(ConversionError, match=r"lacks 1 tensor \(conv_out\.bias\)") as caught:
        plan(checkpoint)
    assert caught.value.code == "weights.missing"


@pytest.mark.robustness  # traces a class
def test_a_dry_run_compares_shapes_also_with_classes_that_will_be_traced(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sdsetup import workflow

    monkeypatch.setattr(workflow, "graph_cache", lambda: tmp_path / "empty")
    reshape(checkpoint, "vae", "decoder.conv_in.weight")
    assert main(["convert", str(checkpoint), "--dry-run", "--target", "cpu"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "The tensor decoder.conv_in.weight of 'vae' has the shape" in said

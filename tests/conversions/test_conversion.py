"""Converting: what comes out, what old checkpoints look like, what is refused, and what survives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conversions.checkpoint.folder import Checkpoint, open_folder
from conversions.conversion import Checks, Converted, convert
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.options import Options
from conversions.package.layout import open_package, record
from conversions.package.needs import device_bytes, weight_bytes
from conversions.plan import make_plan
from conversions.providers.devices import CPU as HOST
from sdsetup.error_hints import hint_for

pytestmark = pytest.mark.torch

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
VAE_FILE = "vae/diffusion_pytorch_model.safetensors"
CPU = Checks(device=HOST)


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def run(graph_cache: Path, tmp_path: Path) -> Callable[..., Converted]:
    def run(source: Path | Checkpoint, output: Path | None = None, **rest: object) -> Converted:
        opened = source if isinstance(source, Checkpoint) else open_folder(source)
        checks = rest.pop("checks", None)
        overwrite = rest.pop("overwrite", False)
        plan = make_plan(opened, Options(**{"target": "cpu", **rest}), graph_cache)
        return convert(
            plan,
            opened,
            output or tmp_path / "package",
            tool_version="test",
            graph_cache=graph_cache,
            checks=checks,
            overwrite=overwrite,
            listener=ignore,
        )

    return run


def edit_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text("utf-8"))
    for name, value in changes.items():
        content.pop(name, None)
        if value is not ...:
            content[name] = value
    path.write_text(json.dumps(content), "utf-8")


def edit_weights(path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    save_file(change(load_file(path)), path)


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): record(path).sha256
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("precision", "gate"), [("fp16", 40), pytest.param("fp32", 80, marks=pytest.mark.robustness)]
)
def test_every_submodel_agrees_with_pytorch(
    precision: str, gate: int, tiny_checkpoint: Path, run: Callable[..., Converted]
) -> None:
    converted = run(tiny_checkpoint, precision=precision, checks=CPU)
    assert converted.report is not None
    assert [each.submodel for each in converted.report.submodels] == [
        "text_encoder",
        "unet",
        "vae_encoder",
        "vae_decoder",
        "safety_checker",
    ]
    for each in converted.report.submodels:
        assert each.parity is not None
        assert each.parity.psnr_db >= each.parity.gate_db == gate
        assert set(each.placement.nodes) == {"CPUExecutionProvider"}
    manifest = open_package(converted.package.folder).manifest
    assert manifest["precision"] == precision
    assert manifest["checkpoint"]["sha256"][UNET_FILE] == record(tiny_checkpoint / UNET_FILE).sha256
    assert set(manifest["parity"]["submodels"]) == set(manifest["submodels"])
    assert set(manifest["memory"]["submodels"]) == set(manifest["submodels"])
    for name in manifest["submodels"]:
        needed = device_bytes(converted.package, name)
        assert needed is not None
        assert needed > weight_bytes(converted.package, name) > 0
    on_disk = files_of(converted.package.folder)
    on_disk.pop("manifest.json")
    assert on_disk == {name: entry["sha256"] for name, entry in manifest["files"].items()}


def test_two_conversions_give_the_same_bytes(
    tiny_checkpoint: Path, tiny_package: Path, run: Callable[..., Converted]
) -> None:
    assert files_of(run(tiny_checkpoint).package.folder) == files_of(tiny_package)


@pytest.mark.robustness
def test_a_directml_package_is_fused_and_still_verified_on_the_cpu(
    tiny_checkpoint: Path, run: Callable[..., Converted]
) -> None:
    import onnx

    converted = run(tiny_checkpoint, target="directml", checks=CPU)
    graph = onnx.load(converted.package.graph("unet"), load_external_data=False).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("GroupNorm") > 0
    assert "InstanceNormalization" not in operators
    assert converted.report is not None
    assert converted.report.passed


def old_vae_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        tensors = {name.replace(f".{new}.", f".{old}."): value for name, value in tensors.items()}
    return tensors


def prefixed(prefix: str) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    def change(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        bare = {name.removeprefix(prefix): value for name, value in tensors.items()}
        places = np.arange(77, dtype=np.int64)[None]
        return {prefix + name: value for name, value in bare.items()} | {
            prefix + "embeddings.position_ids": places
        }

    return change


def sharded(path: Path) -> None:
    tensors = load_file(path)
    names = sorted(tensors)
    halves = {f"{path.stem}-{part + 1:05}-of-00002.safetensors": names[part::2] for part in range(2)}
    for file, mine in halves.items():
        save_file({name: tensors[name] for name in mine}, path.parent / file)
    index = {"metadata": {}, "weight_map": {name: file for file, mine in halves.items() for name in mine}}
    (path.parent / f"{path.name}.index.json").write_text(json.dumps(index), "utf-8")
    path.unlink()


def as_published_in_2022(checkpoint: Path) -> None:
    """Give a checkpoint the names, fields and buffers that real Stable Diffusion 1.x checkpoints have."""
    edit_weights(checkpoint / VAE_FILE, old_vae_names)
    edit_weights(checkpoint / "text_encoder/model.safetensors", prefixed("text_model."))
    vision = "vision_model.vision_model."
    edit_weights(
        checkpoint / "safety_checker/model.safetensors",
        lambda tensors: (
            {
                name.replace("vision_model.", vision, 1) if name.startswith("vision_model.") else name: value
                for name, value in tensors.items()
            }
            | {vision + "embeddings.position_ids": np.arange(17, dtype=np.int64)[None]}
        ),
    )
    edit_json(checkpoint / "vae/config.json", scaling_factor=..., use_quant_conv=..., force_upcast=...)
    edit_json(
        checkpoint / "unet/config.json", **dict.fromkeys(("addition_embed_type", "conv_in_kernel"), ...)
    )
    for file in (UNET_FILE, VAE_FILE):
        tensors = load_file(checkpoint / file)
        halves = {name: value.astype(np.float16) for name, value in tensors.items()}
        folder, name = (checkpoint / file).parent, "diffusion_pytorch_model"
        save_file(halves, folder / f"{name}.fp16.safetensors")
        save_file(halves, folder / f"{name}.non_ema.safetensors")


@pytest.mark.robustness  # two conversions
def test_a_checkpoint_with_the_names_of_2022_gives_the_same_weights(
    checkpoint: Path, tiny_package: Path, run: Callable[..., Converted]
) -> None:
    as_published_in_2022(checkpoint)
    converted = run(checkpoint, checks=CPU)
    for name in open_package(tiny_package).submodel_names:
        data = f"{name}/model.onnx_data"
        assert sorted(weights(converted.package.folder / name)) == sorted(weights(tiny_package / name)), data


def weights(folder: Path) -> list[tuple[str, bytes]]:
    import onnx_ir as ir

    found = []
    for name, value in ir.load(folder / "model.onnx").graph.initializers.items():
        place = value.const_value
        if isinstance(place, ir.ExternalTensor):  # which does not read files with several hard links
            with (folder / place.location).open("rb") as file:
                file.seek(place.offset or 0)
                found.append((name, file.read(place.length)))
        else:
            found.append((name, place.numpy().tobytes()))
    return found


def test_sharded_weights_give_the_same_weights(
    checkpoint: Path, tiny_package: Path, run: Callable[..., Converted]
) -> None:
    sharded(checkpoint / UNET_FILE)
    converted = run(checkpoint)
    assert sorted(weights(converted.package.folder / "unet")) == sorted(weights(tiny_package / "unet"))


def test_half_precision_weights_that_are_the_only_ones_are_used(
    checkpoint: Path, tiny_package: Path, run: Callable[..., Converted]
) -> None:
    path = checkpoint / UNET_FILE
    edit_weights(path, lambda tensors: {name: value.astype(np.float16) for name, value in tensors.items()})
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    converted = run(checkpoint)
    assert sorted(weights(converted.package.folder / "unet")) == sorted(weights(tiny_package / "unet"))


def test_bfloat16_weights_are_read(
    checkpoint: Path, tiny_package: Path, run: Callable[..., Converted]
) -> None:
    import torch
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    path = checkpoint / UNET_FILE
    save_torch({name: value.to(torch.bfloat16) for name, value in load_torch(path).items()}, path)
    found, exact = (
        dict(weights(package / "unet")) for package in (run(checkpoint).package.folder, tiny_package)
    )
    for name, data in found.items():
        if name in load_torch(path):
            # bfloat16 keeps 8 bits of a number.
            np.testing.assert_allclose(
                np.frombuffer(data, np.float16), np.frombuffer(exact[name], np.float16), rtol=2**-8, atol=1e-6
            )


def test_a_checkpoint_without_safety_checker_gives_a_package_without(
    checkpoint: Path, run: Callable[..., Converted]
) -> None:
    edit_json(checkpoint / "model_index.json", safety_checker=[None, None])
    shutil.rmtree(checkpoint / "safety_checker")
    assert "safety_checker" not in run(checkpoint).package.submodel_names


def test_the_safety_checker_can_be_dropped(tiny_checkpoint: Path, run: Callable[..., Converted]) -> None:
    package = run(tiny_checkpoint, safety_checker=False).package
    assert "safety_checker" not in package.submodel_names
    index = json.loads((package.folder / "model_index.json").read_text("utf-8"))
    assert index["safety_checker"] == [None, None]


def change_tensor(name: str, value: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(checkpoint: Path) -> None:
        edit_weights(checkpoint / UNET_FILE, lambda tensors: {**tensors, name: value(tensors[name])})

    return spoil


def drop_tensor(checkpoint: Path) -> None:
    edit_weights(
        checkpoint / UNET_FILE,
        lambda tensors: {name: value for name, value in tensors.items() if name != "conv_in.weight"},
    )


def cut_short(checkpoint: Path) -> None:
    path = checkpoint / UNET_FILE
    os.truncate(path, path.stat().st_size - 1000)


def no_safetensors(checkpoint: Path) -> None:
    (checkpoint / UNET_FILE).write_bytes(b"<html>404</html>" * 100)


def not_json(checkpoint: Path) -> None:
    (checkpoint / "unet/config.json").write_text("{", "utf-8")


def only_pickles(checkpoint: Path) -> None:
    (checkpoint / UNET_FILE).rename(checkpoint / "unet/diffusion_pytorch_model.bin")


SPOILED = {
    "no model_index.json": (lambda path: (path / "model_index.json").unlink(), "checkpoint.not_a_pipeline"),
    "another pipeline": (
        lambda path: edit_json(path / "model_index.json", _class_name="QwenImagePipeline"),
        "family.unsupported",
    ),
    "config that is no JSON": (not_json, "checkpoint.corrupt"),
    "no unet": (lambda path: shutil.rmtree(path / "unet"), "checkpoint.component_missing"),
    "no weights": (lambda path: (path / UNET_FILE).unlink(), "weights.absent"),
    "cut short": (cut_short, "checkpoint.truncated"),
    "not safetensors": (no_safetensors, "checkpoint.corrupt"),
    "only pickles": (only_pickles, "weights.pickle"),
    "missing tensor": (drop_tensor, "weights.missing"),
    "wrong shape": (change_tensor("conv_in.weight", lambda old: old[:, :3].copy()), "weights.shape"),
    "too large for fp16": (change_tensor("conv_out.bias", lambda old: old + 70000), "weights.overflow"),
    "NaN": (change_tensor("conv_out.bias", lambda old: old * np.float32("nan")), "weights.not_finite"),
    "infinity": (change_tensor("conv_out.bias", lambda old: old + np.float32("inf")), "weights.not_finite"),
    "integers": (change_tensor("conv_out.bias", lambda old: old.astype(np.int32)), "weights.dtype"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_checkpoint_is_refused_by_name_and_nothing_is_published(
    case: str, checkpoint: Path, run: Callable[..., Converted], tmp_path: Path
) -> None:
    spoil, code = SPOILED[case]
    spoil(checkpoint)
    with pytest.raises(ConversionError) as caught:
        run(checkpoint)
    assert caught.value.code == code
    assert caught.value.message
    hint = hint_for(caught.value)
    assert hint
    assert ("--keep-fp32 unet" in hint) == (code == "weights.overflow")
    assert not (tmp_path / "package").exists()


def test_a_tensor_too_large_for_fp16_is_no_obstacle_when_its_submodel_stays_fp32(
    checkpoint: Path, run: Callable[..., Converted]
) -> None:
    change_tensor("conv_out.bias", lambda old: old + 70000)(checkpoint)
    package = run(checkpoint, precisions={"unet": "fp32"}).package
    assert package.manifest["submodels"]["unet"]["precision"] == "fp32"
    assert package.manifest["submodels"]["vae_decoder"]["precision"] == "fp16"


def test_wrong_numbers_are_caught_and_the_old_package_stays(
    checkpoint: Path, run: Callable[..., Converted], tmp_path: Path
) -> None:
    """The graph of another configuration with tensors of the same names and shapes is not the same model."""
    run(checkpoint)
    before = files_of(tmp_path / "package")
    opened = open_folder(checkpoint)
    real = dict(opened.components["unet"].config)
    edit_json(checkpoint / "unet/config.json", norm_num_groups=4)
    # The checkpoint now says 4 groups to PyTorch, and 8 to the conversion that was opened before.
    assert real["norm_num_groups"] == 8
    with pytest.raises(ConversionError) as caught:
        run(opened, checks=CPU, overwrite=True)
    assert caught.value.code == "verify.failed"
    assert "unet" in caught.value.message
    assert files_of(tmp_path / "package") == before


def test_a_package_is_replaced_only_when_told_and_foreign_files_never(
    tiny_checkpoint: Path, run: Callable[..., Converted], tmp_path: Path
) -> None:
    package = run(tiny_checkpoint).package.folder
    with pytest.raises(ConversionError) as caught:
        run(tiny_checkpoint)
    assert caught.value.code == "package.exists"
    assert "--overwrite" in hint_for(caught.value)
    run(tiny_checkpoint, precision="fp32", overwrite=True)
    assert open_package(package).manifest["precision"] == "fp32"
    foreign = tmp_path / "images"
    foreign.mkdir()
    (foreign / "cat.png").write_bytes(b"cat")
    with pytest.raises(ConversionError) as caught:
        run(tiny_checkpoint, foreign, overwrite=True)
    assert caught.value.code == "package.foreign"
    assert (foreign / "cat.png").read_bytes() == b"cat"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_path_with_spaces_and_letters_of_any_alphabet_works(
    tiny_checkpoint: Path, tiny_package: Path, run: Callable[..., Converted], tmp_path: Path
) -> None:
    source = shutil.copytree(tiny_checkpoint, tmp_path / "mein Modell 模型")
    package = run(source, tmp_path / "ein Päckchen 包").package
    assert files_of(package.folder) == files_of(tiny_package) | {
        "manifest.json": record(package.folder / "manifest.json").sha256
    }


CONVERT_AND_REPORT = """
import sys
from pathlib import Path
from conversions.checkpoint.folder import open_folder
from conversions.conversion import convert
from conversions.events import ignore
from conversions.options import Options
from conversions.plan import make_plan
source, output, cache = map(Path, sys.argv[1:])
opened = open_folder(source)
plan = make_plan(opened, Options(target="cpu"), cache)
print("ready", flush=True)
convert(plan, opened, output, tool_version="test", graph_cache=cache, checks=None, listener=ignore)
"""


@pytest.mark.robustness  # tests.robustness.kills does it too
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_that_is_killed_at_any_moment_is_finished_by_the_next(
    tiny_checkpoint: Path,
    tiny_package: Path,
    graph_cache: Path,
    tmp_path: Path,
    run: Callable[..., Converted],
) -> None:
    output = tmp_path / "package"
    command = [sys.executable, "-c", CONVERT_AND_REPORT, str(tiny_checkpoint), str(output), str(graph_cache)]
    random = np.random.default_rng(5)
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(float(random.uniform(0, 0.4)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if output.exists():
            assert files_of(output) == files_of(tiny_package)
            shutil.rmtree(output)
    run(tiny_checkpoint)
    assert files_of(output) == files_of(tiny_package)
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_a_component_that_an_earlier_run_finished_is_not_made_again(
    checkpoint: Path, run: Callable[..., Converted], tmp_path: Path, tiny_package: Path
) -> None:
    change_tensor("conv_out.bias", lambda old: old + 70000)(checkpoint)
    with pytest.raises(ConversionError):
        run(checkpoint)
    staged = tmp_path / ".package.partial" / "text_encoder" / "model.onnx_data"
    before = staged.stat().st_ino
    with pytest.raises(ConversionError):
        run(checkpoint)
    assert staged.stat().st_ino == before
    staged.write_bytes(staged.read_bytes()[::-1])
    with pytest.raises(ConversionError):
        run(checkpoint)
    assert record(staged) == record(tiny_package / "text_encoder" / "model.onnx_data")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_is_one_message_and_the_next_run_goes_on(
    tiny_checkpoint: Path, tmp_path: Path, run: Callable[..., Converted], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        with pytest.raises(ConversionError) as planned:
            run(tiny_checkpoint, disk / "package")
        plenty = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: plenty)  # it fills up while we write
        with pytest.raises(ConversionError) as met:
            run(tiny_checkpoint, disk / "package")
        assert planned.value.code == met.value.code == "package.disk_full"
        assert not (disk / "package").exists()
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert run(tiny_checkpoint, disk / "package").package.submodel_names
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_no_torch_is_imported_when_every_graph_is_at_hand(
    tiny_checkpoint: Path, graph_cache: Path, tmp_path: Path
) -> None:
    checks = (
        "\nheavy = {'torch', 'diffusers', 'transformers', 'onnxscript', 'onnxruntime'} & set(sys.modules)\n"
    )
    script = CONVERT_AND_REPORT + checks + "print(sorted(heavy))"
    arguments = [str(tiny_checkpoint), str(tmp_path / "package"), str(graph_cache)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"

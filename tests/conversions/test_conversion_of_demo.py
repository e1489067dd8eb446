"""Conversions of the model that comes with the program: without PyTorch, a second each."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conversions import conversion
from conversions.checkpoint.folder import Checkpoint, open_checkpoint, open_folder
from conversions.checkpoint.memory import Memory
from conversions.conversion import Checks, Converted, convert
from conversions.errors import ConversionError
from conversions.events import Event, Finished, Notice, Started, ignore
from conversions.options import Options
from conversions.package.layout import Package
from conversions.package.manifest import KEPT
from conversions.plan import make_plan
from conversions.providers.devices import CPU
from sdsetup.demo import checkpoint_path

CHECKS = Checks(device=CPU, reference="float32_graph")
PARTS = ["text_encoder", "unet", "vae"]
slow = pytest.mark.skipif(sys.platform == "win32", reason="slow under Wine")


def run(opened: Checkpoint, output: Path, *, listener: Any = ignore, **more: Any) -> Converted:
    given = {"tool_version": "1.2", "graph_cache": None, "checks": None, "listener": listener}
    options = Options(target=more.pop("target", "cpu"), precision=more.pop("precision", "fp16"))
    return convert(make_plan(opened, options, None), opened, output, **{**given, **more})


@pytest.fixture
def opened() -> Checkpoint:
    return open_folder(checkpoint_path())


def begun(told: list[Event]) -> list[str]:
    return [event.task for event in told if isinstance(event, Started)]


def test_each_component_is_told_and_the_manifest_says_what_made_it(
    opened: Checkpoint, tmp_path: Path
) -> None:
    told: list[Event] = []
    made = run(opened, tmp_path / "package", listener=told.append)
    assert begun(told) == PARTS
    assert [event.task for event in told if isinstance(event, Finished)] == PARTS
    assert made.report is None
    manifest = made.package.manifest
    assert manifest["tool"]["sdsetup"] == "1.2"
    assert "parity" not in manifest
    assert set(manifest["memory"]["submodels"]) == set(made.package.submodel_names)
    assert (made.package.folder / "model_index.json").is_file()
    assert (made.package.folder / "tokenizer" / "vocab.json").is_file()


def test_a_run_that_was_interrupted_goes_on(opened: Checkpoint, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Started) and event.task == "unet":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(opened, tmp_path / "package", listener=stop)
    assert not (tmp_path / "package").exists()
    told: list[Event] = []
    made = run(opened, tmp_path / "package", listener=told.append)
    assert Notice(text="Going on where an earlier run was interrupted.") in told
    assert begun(told) == ["unet", "vae"]
    whole = run(opened, tmp_path / "other")
    assert made.package.manifest["files"] == whole.package.manifest["files"]


def test_what_was_made_for_another_plan_is_made_again(opened: Checkpoint, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Started) and event.task == "vae":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(opened, tmp_path / "package", listener=stop)
    told: list[Event] = []
    run(opened, tmp_path / "package", precision="fp32", listener=told.append)
    assert begun(told) == PARTS
    assert not [event for event in told if isinstance(event, Notice)]


def test_a_package_is_replaced_when_told(opened: Checkpoint, tmp_path: Path) -> None:
    run(opened, tmp_path / "package")
    with pytest.raises(ConversionError) as caught:
        run(opened, tmp_path / "package")
    assert caught.value.code == "package.exists"
    again = run(opened, tmp_path / "package", precision="fp32", overwrite=True)
    assert again.package.manifest["precision"] == "fp32"


def test_graphs_are_traced_anew_where_they_can_be(
    opened: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conversions.graphs.obtain.find_spec", lambda _: None)
    with pytest.raises(
        ConversionError, match="text_encoder, unet, vae_encoder and vae_decoder must"
    ) as caught:
        run(opened, tmp_path / "package", retrace=True)
    assert caught.value.code == "graph.needs_pytorch"
    assert not list(tmp_path.iterdir())


@slow
def test_numbers_are_compared_in_the_package_s_precision(opened: Checkpoint, tmp_path: Path) -> None:
    told: list[Event] = []
    made = run(opened, tmp_path / "package", precision="fp32", checks=CHECKS, listener=told.append)
    assert made.report is not None
    names = made.package.submodel_names
    assert begun(told)[: 3 + len(names)] == [*PARTS, *(f"reference {name}" for name in names)]
    assert not [task for task in begun(told) if task.startswith("range ")]  # float32 has range enough
    entry = made.package.manifest["parity"]
    assert (entry["reference"], set(entry["submodels"])) == ("float32_graph", set(names))
    assert made.package.manifest["tool"]["sdsetup"] == "1.2"


@slow
def test_a_layer_beyond_float16_is_found_and_kept_in_float32(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint_path(), tmp_path / "checkpoint"))
    file = folder / "text_encoder" / "model.safetensors"
    stored = load_file(file)
    name = next(name for name in stored if name.endswith("layers.0.mlp.fc1.weight"))
    large = stored[name].astype(np.float32) * 30_000
    save_file({**stored, name: large.clip(-60_000, 60_000).astype(stored[name].dtype)}, file)
    told: list[Event] = []
    made = run(open_folder(folder), tmp_path / "package", checks=CHECKS, listener=told.append)
    assert "range text_encoder" in begun(told)
    submodels = made.package.manifest["submodels"]
    kept = {each: len(submodels[each].get(KEPT, ())) for each in submodels}
    assert [each for each, count in kept.items() if count] == ["text_encoder"]
    assert made.report is not None
    assert made.report.passed


@slow
def test_a_checkpoint_that_is_not_kept_here_is_compared_with_nothing(tmp_path: Path) -> None:
    content = {
        path.relative_to(checkpoint_path()).as_posix(): path.read_bytes()
        for path in checkpoint_path().rglob("*")
        if path.is_file()
    }
    remote = open_checkpoint(Memory("far away", content), origin="far away")
    told: list[Event] = []
    made = run(remote, tmp_path / "package", checks=CHECKS, target="directml", listener=told.append)
    notices = [event.text for event in told if isinstance(event, Notice)]
    assert notices[0].startswith("The checkpoint is not kept here")
    assert not [task for task in begun(told) if task.startswith(("reference", "range"))]
    assert made.report is not None
    assert {each.parity for each in made.report.submodels} == {None}
    # What nobody measured stays in float32, as without any verification.
    plain = run(open_folder(checkpoint_path()), tmp_path / "plain", target="directml")
    assert node_types(made.package) == node_types(plain.package)


def node_types(package: Package) -> dict[str, list[str]]:
    import onnx

    return {
        name: sorted(
            node.op_type for node in onnx.load(package.graph(name), load_external_data=False).graph.node
        )
        for name in package.submodel_names
    }


class StopError(Exception):
    """Raised in place of the references, which take seconds."""


def stop(*_: Any, **__: Any) -> None:
    raise StopError


def test_what_will_be_measured_is_made_in_float16_first_and_the_rest_more_carefully(
    opened: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    careful = run(opened, tmp_path / "careful", target="directml").package
    monkeypatch.setattr(conversion, "run_references", stop)
    with pytest.raises(StopError):
        run(opened, tmp_path / "package", target="directml", checks=CHECKS)
    staged = replace(careful, folder=tmp_path / ".package.partial")
    casts = [node_types(each)["unet"].count("Cast") for each in (staged, careful)]
    assert casts[0] < casts[1]
    # What is staged for a package that is measured is none for one that is not.
    told: list[Event] = []
    run(opened, tmp_path / "package", target="directml", listener=told.append)
    assert begun(told) == PARTS


@pytest.mark.parametrize("reference", ["pytorch", "float32_graph"])
def test_tokenizers_are_compared_where_transformers_is_there(
    opened: Checkpoint, reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Path] = []
    monkeypatch.setattr(conversion, "compare_tokenizers", lambda folder: compared.append(folder) or [])
    monkeypatch.setattr(conversion, "run_references", stop)
    with pytest.raises(StopError):
        run(opened, tmp_path / "package", checks=Checks(device=CPU, reference=reference))
    assert [each.name for each in compared] == (["tokenizer"] if reference == "pytorch" else [])


def test_a_tokenizer_that_gives_other_ids_than_transformers_names_the_prompt(
    opened: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    differing: list[str] = []
    monkeypatch.setattr(
        conversion, "compare_tokenizers", lambda folder: differing if folder.is_dir() else None
    )
    conversion._compare_tokenizers(opened, checkpoint_path())
    differing += ["a cat", "a dog"]
    with pytest.raises(ConversionError) as caught:
        conversion._compare_tokenizers(opened, checkpoint_path())
    assert caught.value.code == "verify.tokenizer"
    assert caught.value.message.startswith(f"{opened.storage.label}/tokenizer gives other token ids here")
    assert caught.value.message.endswith("for 2 of the prompts compared; the first is 'a cat'.")
    assert "report this" in caught.value.hint

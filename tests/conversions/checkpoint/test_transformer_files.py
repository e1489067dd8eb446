"""Single files of transformers: the folder's weights bit for bit, in every type they are published in."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions.checkpoint.folder import Checkpoint, component_tensors, open_folder
from conversions.checkpoint.single_file import open_file
from conversions.errors import ConversionError
from conversions.options import Options
from conversions.plan import make_plan
from tests import transformer_files
from tests.checkpoints import VARIANTS, make_variant
from tests.conversions.checkpoint.test_single_file import mutated, values, write_hole

pytestmark = pytest.mark.torch

FAMILIES = {
    "flux schnell": "flux",
    "flux dev": "flux",
    "stable-diffusion-3": "stable-diffusion-3",
    "stable-diffusion-3 of 2024 without T5": "stable-diffusion-3",
    "z-image turbo": "z-image",
    "flux2-klein": "flux2-klein",
    "sana": "sana",
    "sana-sprint": "sana-sprint",
}


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def family(name: str) -> str:
    return FAMILIES[name]


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_variant(tmp_path_factory.mktemp("checkpoint") / "tiny", VARIANTS[name])


@pytest.fixture(scope="module")
def base(folder: Path) -> Checkpoint:
    return open_folder(folder)


def assert_equal(one: Checkpoint, other: Checkpoint, component: str) -> None:
    mine, theirs = values(one, component), values(other, component)
    assert mine.keys() == theirs.keys()
    for name, numbers in theirs.items():
        assert mine[name].shape == numbers.shape, name
        assert np.array_equal(mine[name], numbers), name


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_denoiser_alone_has_the_weights_of_the_folder_and_takes_the_rest_from_it(
    folder: Path, family: str, base: Checkpoint, prefix: str, tmp_path: Path
) -> None:
    tensors = transformer_files.denoiser(folder, family)
    file = transformer_files.write(
        {prefix + name: each for name, each in tensors.items()}, tmp_path / "denoiser.safetensors"
    )
    opened = open_file(file, base=base)
    assert opened.family.name == family
    assert opened.components["transformer"].weights.files == ("single-file.safetensors",)
    assert_equal(opened, base, "transformer")
    assert {name: each for name, each in opened.components.items() if name != "transformer"} == {
        name: each for name, each in base.components.items() if name != "transformer"
    }
    # The configuration is read off the tensors, and is the folder's.
    mine, theirs = (each.components["transformer"].config for each in (opened, base))
    assert mine == {**theirs, **{name: each for name, each in mine.items() if name not in theirs}}
    assert make_plan(opened, Options(), None).fingerprint != make_plan(base, Options(), None).fingerprint


def test_a_file_with_everything_has_the_weights_of_the_folder(
    folder: Path, family: str, base: Checkpoint, tmp_path: Path
) -> None:
    import torch

    file = transformer_files.write(transformer_files.whole(folder, family), tmp_path / "whole.safetensors")
    opened = open_file(file, base=base)
    assert opened.components.keys() == base.components.keys()
    autoencoder = set() if family in transformer_files.ALONE else {"vae"}
    inside = {
        "transformer",
        *autoencoder,
        *transformer_files.ENCODERS.get(family, {}),
    } & base.components.keys()
    for component in inside:
        assert opened.components[component].weights.files == ("single-file.safetensors",)
        if (family, component) != ("stable-diffusion-3", "text_encoder"):
            assert_equal(opened, base, component)
            continue
        # Nothing projects the pooled state of CLIP's smaller encoder in this family: as diffusers' loader.
        mine, theirs = values(opened, component), values(base, component)
        assert np.array_equal(mine.pop("text_projection.weight"), torch.eye(32).numpy())
        theirs.pop("text_projection.weight")
        assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)


def test_t5_of_a_file_is_left_out_where_it_can_be(
    folder: Path, family: str, base: Checkpoint, tmp_path: Path
) -> None:
    file = transformer_files.write(transformer_files.whole(folder, family), tmp_path / "whole.safetensors")
    if family == "stable-diffusion-3":
        opened = open_file(file, base=base, without=("t5",))
        assert opened.components.keys() == base.components.keys() - {"text_encoder_3"}
        assert "tokenizer_3" not in opened.tokenizers
        return
    with pytest.raises(ConversionError) as caught:
        open_file(file, base=base, without=("t5",))
    assert caught.value.code == ("component.required" if family == "flux" else "component.absent")


def test_diffusers_loader_reads_the_same_from_the_file(folder: Path, family: str) -> None:
    import torch
    from diffusers.loaders import single_file_utils

    loader = {
        "flux": single_file_utils.convert_flux_transformer_checkpoint_to_diffusers,
        "stable-diffusion-3": single_file_utils.convert_sd3_transformer_checkpoint_to_diffusers,
        "z-image": single_file_utils.convert_z_image_transformer_checkpoint_to_diffusers,
        "flux2-klein": single_file_utils.convert_flux2_transformer_checkpoint_to_diffusers,
        "sana": single_file_utils.convert_sana_transformer_to_diffusers,
    }.get(family)
    if loader is None:
        pytest.skip("diffusers' loader knows no guidance, which its script for folders does")
    tensors = transformer_files.denoiser(folder, family)
    if family == "flux":
        # Its loader knows one width alone, 3072; only these tensors are divided by it.
        for name in [each for each in tensors if ".linear1." in each]:
            tensors[name] = torch.empty((7 * 3072, *tensors[name].shape[1:]), device="meta")
    read = loader(tensors)
    expected = transformer_files.component(folder, "transformer")
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        assert read[name].is_meta or torch.equal(read[name], value), name


def test_the_stream_writes_these_weights(folder: Path, family: str, base: Checkpoint, tmp_path: Path) -> None:
    import onnx_ir as ir

    from conversions.weights.binding import Binding, place_in_checkpoint
    from conversions.weights.stream import stream

    stored, _ = stored_as(transformer_files.whole(folder, family), "scaled float8")
    file = transformer_files.write(stored, tmp_path / "whole.safetensors")
    opened = open_file(file, base=base)
    bindings: dict[str, list[Binding]] = {"transformer": [], "text_encoder": []}
    for name, items in bindings.items():
        end = 0
        tensors = component_tensors(opened.storage, opened.components[name])
        for tensor, each in sorted(tensors.items(), key=lambda item: place_in_checkpoint(item[1])):
            if "position_ids" in tensor:
                continue
            size = 4 * each.size
            items.append(
                Binding(
                    initializer=tensor, source=each, dtype=ir.DataType.FLOAT, shape=each.shape, offset=end
                )
            )
            end += -(-size // 4096) * 4096
    paths = {name: tmp_path / name for name in bindings}
    stream(bindings, opened.storage, paths, tmp_path / "progress", lambda _: None)
    for name, items in bindings.items():
        written, expected = paths[name].read_bytes(), values(opened, name)
        for item in items:
            numbers = expected[item.initializer.removeprefix("text_model.")].astype(np.float32)
            assert written[item.offset : item.offset + numbers.nbytes] == numbers.tobytes(), item.initializer


def stored_as(tensors: dict[str, Any], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return tensors as a published file has them, and the numbers that they stand for."""
    import torch

    stored, meant = {}, {}
    for name, value in tensors.items():
        if kind == "bfloat16" or value.ndim < 2 or not name.endswith(".weight"):
            stored[name] = value.bfloat16()
            meant[name] = stored[name].float()
            continue
        scale = value.abs().max().float() / 448 if kind == "scaled float8" else torch.tensor(1.0)
        stored[name] = (value / scale).to(torch.float8_e4m3fn)
        meant[name] = stored[name].float() * scale
        if kind == "scaled float8":
            stored[f"{name}_scale"] = scale
    return stored, meant


@pytest.mark.parametrize("kind", ["bfloat16", "float8", "scaled float8"])
def test_types_that_files_are_published_in(
    folder: Path, family: str, base: Checkpoint, kind: str, tmp_path: Path
) -> None:
    tensors = transformer_files.denoiser(folder, family)
    stored, meant = stored_as(tensors, kind)
    opened = open_file(transformer_files.write(stored, tmp_path / "denoiser.safetensors"), base=base)
    found = values(opened, "transformer")
    # The numbers that the file means, as a file in float32, which other tests compare with the folder.
    exact = open_file(transformer_files.write(meant, tmp_path / "exact.safetensors"), base=base)
    expected = values(exact, "transformer")
    assert found.keys() == expected.keys() == values(base, "transformer").keys()
    for name, numbers in expected.items():
        assert np.array_equal(found[name].astype(np.float32), numbers), name
    make_plan(opened, Options(), None)


def test_a_denoiser_in_gguf(folder: Path, family: str, base: Checkpoint, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="ggml's package is not among those for Windows Python")
    import torch

    writer = gguf.GGUFWriter(tmp_path / "denoiser.gguf", family)
    meant = {}
    for name, value in transformer_files.denoiser(folder, family).items():
        numbers = value.float().numpy()
        types = gguf.GGMLQuantizationType
        kind = types.Q8_0 if numbers.ndim == 2 and numbers.shape[1] % 32 == 0 else types.F32
        stored = gguf.quants.quantize(numbers, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
        meant[name] = torch.from_numpy(gguf.quants.dequantize(stored, kind).reshape(numbers.shape).copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    opened = open_file(tmp_path / "denoiser.gguf", base=base)
    exact = open_file(transformer_files.write(meant, tmp_path / "exact.safetensors"), base=base)
    found, expected = values(opened, "transformer"), values(exact, "transformer")
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        np.testing.assert_allclose(found[name], numbers, rtol=1e-6, atol=1e-7)


def test_a_file_that_lacks_tensors_is_refused_with_their_names_and_what_it_has_too_many_is_named(
    tmp_path: Path,
) -> None:
    from conversions.graphs.trace import trace
    from conversions.weights.binding import bind

    folder = make_variant(tmp_path / "tiny", VARIANTS["flux schnell"])
    whole = open_folder(folder)
    tensors = transformer_files.denoiser(folder, "flux")
    submodel = next(each for each in whole.submodels if each.name == "transformer")
    graph = trace(submodel.kind, whole.config_of(submodel))

    def ignored(changed: dict[str, Any]) -> tuple[str, ...]:
        file = transformer_files.write(changed, tmp_path / "changed.safetensors")
        opened = open_file(file, base=whole)
        bound = component_tensors(opened.storage, opened.components["transformer"])
        return bind("transformer", [(submodel, graph)], bound).ignored

    lacking = {
        name: each for name, each in tensors.items() if not name.startswith("single_blocks.0.linear1.")
    }
    with pytest.raises(ConversionError, match=r"lacks .*single_transformer_blocks\.0\.attn\.to_k") as caught:
        ignored(lacking)
    assert caught.value.code == "weights.missing"
    assert ignored({**tensors, "something.weight": tensors["img_in.bias"]}) == ("something.weight",)


def test_a_published_stable_diffusion_3_needs_no_base_unless_it_is_to_have_t5(tmp_path: Path) -> None:
    import torch
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    from conversions.families import stable_diffusion_3, stable_diffusion_xl, z_image
    from tests.single_files import vae_name

    with torch.device("meta"):
        transformer = SD3Transformer2DModel(**stable_diffusion_3.SD35_MEDIUM).state_dict()
        autoencoder = AutoencoderKL(**z_image.VAE).state_dict()
        small, large = (
            CLIPTextModelWithProjection(CLIPTextConfig(**config)).state_dict()
            for config in (stable_diffusion_xl.SDXL_TEXT, stable_diffusion_xl.SDXL_TEXT_2)
        )
        t5 = T5EncoderModel(T5Config(**stable_diffusion_3.T5_XXL)).state_dict()
    found = {
        f"model.diffusion_model.{name}": each for name, each in transformer_files.sd3(transformer).items()
    }
    found |= {vae_name(name, 4): each for name, each in autoencoder.items()}
    found |= {f"text_encoders.clip_l.transformer.{name}": each for name, each in small.items()}
    found |= {f"text_encoders.clip_g.transformer.{name}": each for name, each in large.items()}
    with_t5 = {f"text_encoders.t5xxl.transformer.{name}": each for name, each in t5.items()}
    for tensors, notices in ((found, 0), ({**found, **with_t5}, 1)):
        shapes = {name: tuple(each.shape) for name, each in tensors.items()}
        opened = open_file(write_hole(tmp_path / "model.safetensors", shapes))
        assert opened.family.title == "Stable Diffusion 3"
        assert len(opened.notices) == notices
        assert opened.recipe.native.width == 1024
        assert opened.recipe.defaults.guidance_scale == 4.5
        plan = make_plan(opened, Options(), None)
        assert all(str(origin) == "shipped" for part in plan.components for origin in part.submodels.values())


@pytest.mark.parametrize(
    "seeds",
    [range(12), pytest.param(range(12, 2_500), marks=pytest.mark.robustness)],
    ids=["short", "long"],
)
def test_mutated_files_give_a_plan_or_one_clear_message(
    folder: Path, family: str, base: Checkpoint, seeds: range, tmp_path: Path
) -> None:
    file = transformer_files.write(transformer_files.whole(folder, family), tmp_path / "whole.safetensors")
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    table, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    codes = set()
    for seed in seeds:
        file.write_bytes(mutated(table, body, content, random.Random(seed)))
        for given in (base, None):
            try:
                make_plan(open_file(file, base=given), Options(target="cpu"), None)
                codes.add("planned")
            except ConversionError as error:
                assert error.message, seed
                codes.add(error.code)
    assert len(codes) >= 2


def test_a_file_of_another_model_than_its_base_is_refused(tmp_path: Path) -> None:
    folders = {
        name: make_variant(tmp_path / name.replace(" ", "-"), VARIANTS[name])
        for name in ("flux schnell", "flux dev", "stable-diffusion")
    }
    file = transformer_files.write(
        transformer_files.denoiser(folders["flux dev"], "flux"), tmp_path / "dev.safetensors"
    )
    for name, said in (
        ("flux schnell", "has guidance_embeds True; the base flux-schnell has False"),
        ("stable-diffusion", "is FLUX.1; the base stable-diffusion is Stable Diffusion 1.x"),
    ):
        with pytest.raises(ConversionError, match=said) as caught:
            open_file(file, base=open_folder(folders[name]))
        assert caught.value.code == "checkpoint.other_base"
    with pytest.raises(ConversionError, match=r"is FLUX.1, but lacks .*tokenizer_2") as caught:
        open_file(file)
    assert caught.value.code == "checkpoint.component_missing"

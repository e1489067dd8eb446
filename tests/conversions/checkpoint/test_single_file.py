"""Single files: the same weights as the folder, bit for bit; families by shapes; refusals by name."""

from __future__ import annotations

import json
import math
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from conversions.checkpoint.element_types import element_type
from conversions.checkpoint.folder import Checkpoint, component_tensors, open_folder
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.single_file import open_file
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.options import Options
from tests.checkpoints import VARIANTS, Variant, make_variant
from tests.single_files import write_single_file

pytestmark = pytest.mark.torch
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
NAMES = [name for name, variant in VARIANTS.items() if isinstance(variant, Variant) and name != "TAESD"]


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_variant(tmp_path_factory.mktemp("checkpoint") / "tiny", VARIANTS[request.param])


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return write_single_file(folder, folder.parent / "tiny.safetensors", metadata={"modelspec.title": "Tiny"})


def values(checkpoint: Checkpoint, component: str) -> dict[str, np.ndarray]:
    """Return a component's numbers by the names of its class."""
    storage = checkpoint.storage

    def read(tensor: StoredTensor, first: int, count: int) -> np.ndarray:
        kind = element_type(tensor)
        buffer = bytearray(kind.bytes_of(count))
        reader = storage.open(tensor.file)
        reader.read_into(memoryview(buffer), tensor.offset + kind.bytes_of(first))
        reader.close()
        return kind.decode(buffer)

    return {
        name.removeprefix("text_model."): each.evaluate(0, each.size, read).reshape(each.shape)
        for name, each in component_tensors(storage, checkpoint.components[component]).items()
        if not name.endswith(("position_ids", "num_batches_tracked"))
    }


def test_every_tensor_is_the_folder_s_bit_for_bit(folder: Path, file: Path) -> None:
    whole = open_folder(folder)
    single = open_file(file, base=whole)
    assert single.components.keys() == whole.components.keys()
    assert single.origin == "tiny.safetensors (Tiny)"
    assert any("EMA" in notice for notice in single.notices)
    for component in whole.components:
        assert single.components[component].name == component
        weights = single.components[component].weights
        assert (weights.files, weights.format) == (("single-file.safetensors",), "safetensors")
        mine, theirs = values(single, component), values(whole, component)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in theirs), component
        assert all(mine[name].shape == theirs[name].shape for name in theirs), component


def test_pytorch_reads_the_same_weights(folder: Path, file: Path) -> None:
    from conversions.verification.reference import make_inputs, run_reference
    from conversions.verification.references import weights_of

    whole = open_folder(folder)
    single = open_file(file, base=whole)
    for submodel in whole.submodels:
        config, kind = whole.config_of(submodel), submodel.kind
        inputs = make_inputs(kind, config, kind.sizes)
        made = [
            run_reference(kind, config, weights_of(each, each.components[submodel.component]), inputs).outputs
            for each in (whole, single)
        ]
        for name in made[0]:
            assert np.array_equal(made[0][name], made[1][name]), (submodel.name, name)


@pytest.mark.robustness  # that the tensors are equal is seen above; this takes half a minute a family
def test_the_package_has_the_weights_of_the_folder_s(folder: Path, file: Path, tmp_path: Path) -> None:
    from conversions import graphs
    from conversions.conversion import convert
    from conversions.plan import make_plan

    whole = open_folder(folder)
    for submodel in whole.submodels:
        config = whole.config_of(submodel)
        traced = graphs.trace_and_pack(submodel.kind, config)
        graphs.keep(traced, submodel.kind, config, tmp_path / "graphs")
    outputs = []
    for checkpoint in (whole, open_file(file, base=whole)):
        plan = make_plan(checkpoint, Options(target="cpu", precision="fp16"), tmp_path / "graphs")
        output = tmp_path / f"package-{len(outputs)}"
        convert(
            plan, checkpoint, output, tool_version="test", graph_cache=tmp_path / "graphs", checks=None,
            listener=ignore,
        )  # fmt: skip
        outputs.append(output)
    for submodel in whole.submodels:
        both = [_initializers(output / submodel.name / "model.onnx") for output in outputs]
        assert both[0].keys() == both[1].keys()
        assert all(np.array_equal(both[0][name], both[1][name]) for name in both[0])


def _initializers(graph: Path) -> dict[str, np.ndarray]:
    import onnx_ir as ir

    model = ir.load(graph)
    return {
        name: np.array(value.const_value.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


# True sizes, as a header over a hole: nothing is stored.


def write_hole(
    path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None
) -> Path:
    table: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        table[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(table).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + end)
    return path


# What SSD-1B's U-Net differs in from XL's: as a configuration, and as it is read off the tensors.
SSD = {
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [1, 2, 4],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
SSD_READ = {
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [[1, 1], [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], [1, 1, 1]],
}


def true_shapes(family: str, channels: int = 4) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a published single file, from the classes of diffusers and transformers."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from conversions.families import (
        stable_diffusion,
        stable_diffusion_2,
        stable_diffusion_xl,
        stable_diffusion_xl_refiner,
    )
    from tests.single_files import clip, openclip, unet_name, unet_names, vae_name

    configs = {
        "1": (
            stable_diffusion.SD1_UNET,
            [("clip", stable_diffusion.SD1_TEXT, "cond_stage_model.transformer.")],
        ),
        "2": (
            stable_diffusion_2.SD2_UNET,
            [("open", stable_diffusion_2.SD2_TEXT, "cond_stage_model.model.")],
        ),
        "xl": (
            stable_diffusion_xl.SDXL_UNET,
            [
                ("clip", stable_diffusion_xl.SDXL_TEXT, "conditioner.embedders.0.transformer."),
                ("open", stable_diffusion_xl.SDXL_TEXT_2, "conditioner.embedders.1.model."),
            ],
        ),
        "lcm": (
            stable_diffusion.SD1_LCM_UNET,
            [("clip", stable_diffusion.SD1_TEXT, "cond_stage_model.transformer.")],
        ),
        "refiner": (
            stable_diffusion_xl_refiner.REFINER_UNET,
            [("open", stable_diffusion_xl.SDXL_TEXT_2, "conditioner.embedders.0.model.")],
        ),
    }
    configs["ssd"] = ({**stable_diffusion_xl.SDXL_UNET, **SSD}, configs["xl"][1])
    unet_config, texts = configs[family]
    found: dict[str, object] = {}
    with torch.device("meta"):
        unet = UNet2DConditionModel(**{**unet_config, "in_channels": channels})
        modules = unet_names(dict(unet.config))
        found |= {unet_name(name, modules): value for name, value in unet.state_dict().items()}
        vae = AutoencoderKL(**stable_diffusion.VAE)
        found |= {vae_name(name, 4): value for name, value in vae.state_dict().items()}
        for kind, config, prefix in texts:
            state = CLIPTextModel(CLIPTextConfig(**config)).state_dict()
            if kind == "clip":
                found |= clip(state, prefix)
            else:
                found |= openclip(state, prefix, last=family == "2")
                if family != "2":
                    found[f"{prefix}text_projection"] = torch.empty(1280, 1280)
    return {name: tuple(value.shape) for name, value in found.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("family", "channels", "pipeline"),
    [
        ("1", 4, "StableDiffusionPipeline"),
        ("1", 9, "StableDiffusionInpaintPipeline"),
        ("2", 4, "StableDiffusionPipeline"),
        ("2", 9, "StableDiffusionInpaintPipeline"),
        ("xl", 4, "StableDiffusionXLPipeline"),
        ("xl", 9, "StableDiffusionXLInpaintPipeline"),
        ("refiner", 4, "StableDiffusionXLImg2ImgPipeline"),
    ],
)
def test_a_published_file_is_known_by_its_shapes_and_can_be_planned(
    family: str, channels: int, pipeline: str, tmp_path: Path
) -> None:
    from conversions.plan import make_plan

    file = write_hole(tmp_path / "model.safetensors", true_shapes(family, channels))
    checkpoint = open_file(file)
    titles = {"1": "1.x", "2": "2.x", "xl": "XL", "refiner": "XL refiner"}
    assert checkpoint.family.title == f"Stable Diffusion {titles[family]}"
    assert checkpoint.index["_class_name"] == pipeline
    assert checkpoint.origin == "model.safetensors"
    weights = {name: part.weights for name, part in checkpoint.components.items()}
    assert {(each.files, each.index, each.format, each.variant) for each in weights.values()} == {
        (("single-file.safetensors",), None, "safetensors", "")
    }
    plan = make_plan(checkpoint, Options(), None)
    assert all(str(origin) == "shipped" for part in plan.components for origin in part.submodels.values())


@pytest.mark.parametrize(
    ("metadata", "said", "markers", "prediction", "side"),
    [
        ({}, "", (), "v_prediction", 768),
        ({"modelspec.prediction_type": "epsilon"}, "", (), "epsilon", 512),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "", (), "epsilon", 512),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "", (), "v_prediction", 768),
        ({"modelspec.prediction_type": "v"}, "epsilon", (), "epsilon", 512),
    ],
)
def test_what_a_stable_diffusion_2_predicts(
    metadata: dict[str, str], said: str, markers: tuple[str, ...], prediction: str, side: int, tmp_path: Path
) -> None:
    file = write_hole(tmp_path / "model.safetensors", true_shapes("2"), metadata)
    checkpoint = open_file(file, prediction_type=said)
    assert checkpoint.scheduler["prediction_type"] == prediction
    assert checkpoint.recipe.native.width == side
    assert bool(checkpoint.notices) == (not metadata)


def test_a_latent_consistency_model_is_known_by_its_shapes(tmp_path: Path) -> None:
    from conversions.plan import make_plan

    checkpoint = open_file(write_hole(tmp_path / "model.safetensors", true_shapes("lcm")))
    assert checkpoint.index["_class_name"] == "LatentConsistencyModelPipeline"
    assert checkpoint.scheduler["_class_name"] == "LCMScheduler"
    assert checkpoint.recipe.defaults.steps == 4
    plan = make_plan(checkpoint, Options(), None)
    assert all(str(origin) == "shipped" for part in plan.components for origin in part.submodels.values())


def test_a_distilled_xl_s_blocks_are_counted(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    shapes = true_shapes("ssd")
    checkpoint = open_file(write_hole(tmp_path / "model.safetensors", shapes))
    config = checkpoint.components["unet"].config
    assert {name: config[name] for name in SSD_READ} == SSD_READ
    import torch

    with torch.device("meta"):
        expected = UNet2DConditionModel(**{name: each for name, each in config.items() if name[0] != "_"})
    found = component_tensors(checkpoint.storage, checkpoint.components["unet"])
    assert {name: each.shape for name, each in found.items()} == {
        name: tuple(each.shape) for name, each in expected.state_dict().items()
    }


def test_a_base_gives_a_distilled_file_its_encoders_and_refuses_another_kind_of_model(tmp_path: Path) -> None:
    folders = {
        name: make_variant(tmp_path / name.replace(" ", "-"), VARIANTS[name])
        for name in (
            "stable-diffusion-xl distilled U-Net",
            "stable-diffusion-xl",
            "latent consistency",
            "stable-diffusion",
        )
    }
    file = write_single_file(
        folders["stable-diffusion-xl distilled U-Net"], tmp_path / "distilled.safetensors"
    )
    opened = open_file(file, base=open_folder(folders["stable-diffusion-xl"]))
    assert opened.components["unet"].config["reverse_transformer_layers_per_block"] == [[3, 1], [1, 1]]
    file = write_single_file(folders["latent consistency"], tmp_path / "lcm.safetensors")
    with pytest.raises(
        ConversionError, match="has time_cond_proj_dim 32; the base stable-diffusion has None"
    ):
        open_file(file, base=open_folder(folders["stable-diffusion"]))


def test_markers_of_an_xl_that_predicts_velocity(tmp_path: Path) -> None:
    shapes = {**true_shapes("xl"), "v_pred": (0,), "ztsnr": ()}
    checkpoint = open_file(write_hole(tmp_path / "model.safetensors", shapes))
    assert checkpoint.scheduler["prediction_type"] == "v_prediction"
    assert checkpoint.scheduler["rescale_betas_zero_snr"] is True


@pytest.mark.parametrize(
    ("shapes", "code", "said"),
    [
        ({"lora_unet_down_blocks_0.lora_up.weight": (1,)}, "checkpoint.is_lora", "LoRA"),
        ({"vector_in.in_layer.weight": (1, 768)}, "checkpoint.component_missing", "FLUX.1"),
        ({"distilled_guidance_layer.in_proj.bias": (1,)}, "family.unsupported", "Chroma"),
        ({"control_model.time_embed.0.weight": (1,)}, "family.unsupported", "ControlNet"),
        ({"decoder.conv_in.weight": (1,)}, "checkpoint.is_autoencoder", "VAE"),
        ({"emb_params": (2, 768)}, "checkpoint.is_embedding", "textual inversion"),
        ({FIRST: (320, 8, 3, 3)}, "family.unsupported", "InstructPix2Pix"),
        ({FIRST: (320, 4, 3, 3)}, "family.unsupported", "nearest"),
        ({"a.b": (1,)}, "family.unsupported", "a.b"),
        ({}, "family.unsupported", "none"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_named(
    shapes: dict[str, tuple[int, ...]], code: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError) as caught:
        open_file(write_hole(tmp_path / "model.safetensors", shapes))
    assert caught.value.code == code
    assert said in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="There is no file") as caught:
        open_file(tmp_path / "model.safetensors")
    assert caught.value.code == "checkpoint.missing"


def test_a_missing_part_is_named_and_comes_from_a_base_or_a_file(tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in true_shapes("1").items() if not name.startswith("first_stage")}
    with pytest.raises(ConversionError, match="lacks vae") as caught:
        open_file(write_hole(tmp_path / "model.safetensors", shapes))
    assert caught.value.code == "checkpoint.component_missing"
    folder = make_variant(tmp_path / "tiny", VARIANTS["stable-diffusion"])
    whole = open_folder(folder)
    tiny = write_single_file(folder, tmp_path / "tiny.safetensors")
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny)
    denoiser = {
        name.removeprefix("model.diffusion_model."): value
        for name, value in tensors.items()
        if name.startswith("model.diffusion_model.")
    }
    save_file(denoiser, tmp_path / "denoiser.safetensors")
    alone = open_file(tmp_path / "denoiser.safetensors", base=whole)
    for component in whole.components:
        mine, theirs = values(alone, component), values(whole, component)
        assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
    other = make_variant(tmp_path / "other", VARIANTS["stable-diffusion"], seed=9)
    wanted = values(open_folder(other), "vae")
    vae = {
        name: value
        for name, value in load_file(write_single_file(other, tmp_path / "o.safetensors")).items()
        if name.startswith("first_stage_model.")
    }
    save_file(vae, tmp_path / "vae.safetensors")
    for given, code in (
        (tmp_path / "absent", "checkpoint.missing"),
        (tmp_path / "denoiser.safetensors", "checkpoint.component_missing"),
    ):
        with pytest.raises(ConversionError, match=given.name) as caught:
            open_file(tiny, base=whole, autoencoder=given)
        assert caught.value.code == code
    for given in (other, other / "vae", tmp_path / "vae.safetensors"):
        swapped = open_file(tiny, base=whole, autoencoder=given)
        found = values(swapped, "vae")
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "seeds",
    [range(200), pytest.param(range(200, 10_200), marks=pytest.mark.robustness)],
    ids=["short", "long"],
)
def test_mutated_files_give_a_plan_or_one_clear_message(seeds: range, tmp_path: Path) -> None:
    from conversions.plan import make_plan

    folder = make_variant(tmp_path / "tiny", VARIANTS["stable-diffusion-2"])
    whole = open_folder(folder)
    content = write_single_file(folder, tmp_path / "tiny.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    table, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    path = tmp_path / "mutated.safetensors"
    codes = []
    for seed in seeds:
        path.write_bytes(mutated(table, body, content, random.Random(seed)))
        for base in (whole, None):
            try:
                make_plan(open_file(path, base=base), Options(target="cpu"), None)
                codes.append("planned")
            except ConversionError as error:
                assert error.message, seed
                codes.append(error.code)
    assert "planned" in codes
    assert len(set(codes)) >= 4


def mutated(table: dict, body: bytes, content: bytes, draw: random.Random) -> bytes:
    kind = draw.randrange(6)
    if kind == 0:
        place = draw.randrange(min(len(content), 4000))
        return content[:place] + draw.randbytes(draw.randrange(1, 9)) + content[place + 4 :]
    if kind == 1:
        return content[: draw.randrange(len(content))]
    changed = json.loads(json.dumps(table))
    name = draw.choice(sorted(changed))
    if kind == 2:
        changed[draw.choice(["", "input_blocks.0.0.weight", "x" * 99, name.replace(".0.", ".7777.")])] = (
            changed.pop(name)
        )
    elif kind == 3:
        size = math.prod(changed[name].get("shape", [1])) if name != "__metadata__" else 1
        changed[name] = {
            **changed[name],
            "shape": draw.choice([[size], [1, size], [size, 1, 1, 1], [0], [], [-1]]),
        }
    elif kind == 4:
        changed[name] = draw.choice([None, [], {}, "x", {"dtype": "F16"}, 10**30])
    else:
        del changed[name]
    header = json.dumps(changed).encode()
    return struct.pack("<Q", len(header)) + header + body


def test_a_denoiser_in_gguf_takes_the_rest_from_its_base(folder: Path, file: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    gguf = pytest.importorskip("gguf", reason="ggml's package is not among those for Windows Python")

    prefix = "model.diffusion_model."
    denoiser = {
        name.removeprefix(prefix): each for name, each in load_file(file).items() if name.startswith(prefix)
    }
    writer = gguf.GGUFWriter(tmp_path / "unet.gguf", "sd")
    expected = {}
    for name, numbers in denoiser.items():
        whole = numbers.astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0 if whole.shape[-1] % 32 == 0 else gguf.GGMLQuantizationType.F16
        stored = gguf.quants.quantize(whole, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
        expected[name] = gguf.quants.dequantize(stored, kind).reshape(whole.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    base = open_folder(folder)
    opened = open_file(tmp_path / "unet.gguf", base=base)
    assert opened.components["vae"] == base.components["vae"]
    found, theirs = values(opened, "unet"), values(base, "unet")
    assert found.keys() == theirs.keys()
    assert sum(each.size for each in found.values()) == sum(each.size for each in expected.values())
    for name, numbers in theirs.items():
        np.testing.assert_allclose(found[name], numbers, atol=float(np.abs(numbers).max()) / 100)

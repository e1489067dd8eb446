"""A traced graph is the model: the same numbers at any size, few nodes, no shapes made at run time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions import graphs
from conversions.checkpoint.folder import open_folder
from conversions.graph_kind import GraphKind
from conversions.passes.simplify import TRANSPOSED
from conversions.passes.to_fp16 import to_fp16
from conversions.verification.metrics import compare
from conversions.verification.reference import make_inputs

pytestmark = pytest.mark.torch

SIZES = [
    {"batch": 1, "height": 64, "width": 64, "sequence": 77},
    {"batch": 3, "height": 96, "width": 64, "sequence": 154},
    {"batch": 2, "height": 72, "width": 40, "sequence": 11},
]


@pytest.fixture(scope="module")
def submodels(tiny_checkpoint: Path, graph_cache: Path) -> dict[str, tuple[GraphKind, dict, object]]:
    import torch

    checkpoint = open_folder(tiny_checkpoint)
    made = {}
    for submodel in checkpoint.submodels:
        config = checkpoint.config_of(submodel)
        torch.manual_seed(1)
        kind = submodel.kind
        made[submodel.name] = (kind, config, kind.wrap(kind.create(config)).eval())
    return made


def bound(kind: GraphKind, config: dict, module: object, cache: Path, *, half: bool) -> bytes:
    """Fill a graph with the weights of a torch module."""
    model = graphs.find(kind, config, cache)
    assert model is not None
    if half:
        to_fp16(model, fixed={spec.name for spec in kind.inputs(config) if spec.dtype == "float32"})
    values = {name.removeprefix("model."): value for name, value in module.state_dict().items()}
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            numbers = values[name].numpy()
            numbers = numbers.T if TRANSPOSED in value.metadata_props else numbers
            value.const_value = ir.tensor(
                numbers.reshape(value.shape.numpy()).astype(value.dtype.numpy()), name=name
            )
    return ir.serde.serialize_model(model).SerializeToString()


def sizes_for(name: str, sizes: dict[str, int]) -> dict[str, int]:
    """A text encoder has 77 places for tokens; images are in pixels, latents are not."""
    if name == "text_encoder":
        return {**sizes, "sequence": min(77, sizes["sequence"])}
    return sizes


@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_encoder", "vae_decoder", "safety_checker"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_the_graph_gives_the_numbers_of_pytorch_at_every_size(
    name: str, half: bool, submodels: dict, graph_cache: Path
) -> None:
    import onnxruntime as ort
    import torch

    kind, config, module = submodels[name]
    model = bound(kind, config, module, graph_cache, half=half)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    for sizes in SIZES:
        if name.startswith("vae"):
            sizes = {**sizes, "height": sizes["height"] // 4 * 2, "width": sizes["width"] // 4 * 2}
        inputs = make_inputs(kind, config, sizes_for(name, sizes))
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(inputs[spec.name]) for spec in kind.inputs(config)))
        found = session.run(
            None,
            {
                each.name: inputs[each.name].astype(np.float16)
                if each.type == "tensor(float16)"
                else inputs[each.name]
                for each in session.get_inputs()
            },
        )
        for got, wanted in zip(found, expected if isinstance(expected, tuple) else [expected], strict=True):
            assert compare(got, wanted.numpy()).psnr_db >= (60 if half else 100)


def test_names_and_types_are_the_usual_ones(tiny_package: Path) -> None:
    def specs(name: str) -> tuple[list[str], list[str]]:
        graph = onnx.load(tiny_package / name / "model.onnx", load_external_data=False).graph
        return [each.name for each in graph.input], [each.name for each in graph.output]

    assert specs("text_encoder") == (["input_ids"], ["last_hidden_state", "pooler_output"])
    assert specs("unet") == (["sample", "timestep", "encoder_hidden_states"], ["out_sample"])
    assert specs("vae_encoder") == (["sample"], ["latent_parameters"])
    assert specs("vae_decoder") == (["latent_sample"], ["sample"])
    assert specs("safety_checker") == (["clip_input", "images"], ["out_images", "has_nsfw_concepts"])


def test_attention_is_one_node_and_every_reshape_but_those_back_to_images_is_constant(
    tiny_package: Path,
) -> None:
    model = ir.load(tiny_package / "unet" / "model.onnx")
    operators = [node.op_type for node in model.graph]
    assert operators.count("MultiHeadAttention") == 2 * 4  # down, mid, up, up; self and cross
    assert "Softmax" not in operators
    assert dict(model.opset_imports.items())[""] == 18
    for node in model.graph:
        if node.op_type == "Reshape" and node.inputs[1].const_value is None:
            assert node.inputs[1].producer().op_type == "Shape"


def test_the_same_configuration_written_by_old_and_new_libraries_has_one_fingerprint(
    tiny_checkpoint: Path,
) -> None:
    checkpoint = open_folder(tiny_checkpoint)
    unet = next(submodel.kind for submodel in checkpoint.submodels if submodel.name == "unet")
    written = dict(checkpoint.components["unet"].config)
    old = {name: value for name, value in written.items() if unet.defaults.get(name, "") != value}
    old.pop("sample_size")
    assert len(old) < len(written)
    assert graphs.fingerprint(unet, old) == graphs.fingerprint(unet, written)
    assert graphs.fingerprint(unet, {**written, "norm_eps": 1e-6}) != graphs.fingerprint(unet, written)


def test_a_damaged_graph_in_the_cache_counts_as_absent(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = open_folder(tiny_checkpoint)
    unet = next(submodel.kind for submodel in checkpoint.submodels if submodel.name == "unet")
    config = checkpoint.components["unet"].config
    graphs.keep(b"torn", unet, config, tmp_path)
    assert graphs.find(unet, config, tmp_path) is None

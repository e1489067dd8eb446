"""The graphs of a package, and the sizes of their inputs for an image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from conversions.errors import ConversionError
from conversions.pipeline_graphs import PipelineGraphs, package_graphs
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize

SIZE = ImageSize(width=640, height=512, images=2)


class Recipe:
    """Knows sizes as a family's recipe does: by role."""

    def sizes(self, role: str, size: ImageSize) -> dict[str, int]:
        known = {"batch": size.images, "height": size.height // 8, "width": size.width // 8, "length": 77}
        return known if role == "denoiser" else {**known, "batch": 1}


def graph(inputs: str) -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18]>
    g ({inputs}) => (float y) {{ y = Constant <value = float {{1}}> () }}
    """
    return ir.from_proto(onnx.parser.parse_model(text))


def test_only_the_free_dimensions_of_the_inputs_have_sizes() -> None:
    recipe: Any = Recipe()
    graphs = PipelineGraphs(
        models={
            "unet": graph("float[batch, 4, height, width] x, float[batch] t"),
            "vae_decoder": graph("float[batch, 4, height, 8] x"),
            "odd": graph("float[other, length] x, float t"),
        },
        roles={"unet": "denoiser", "vae_decoder": "decoder", "odd": "denoiser"},
        provider=provider_for("cpu"),
        recipe=recipe,
    )
    assert graphs.sizes("unet", SIZE) == {"batch": 2, "height": 64, "width": 80}
    assert graphs.sizes("vae_decoder", SIZE) == {"batch": 1, "height": 64}
    assert graphs.sizes("odd", SIZE) == {"length": 77}


def package(folder: Path, *names: str) -> Any:
    for name in names[:-1]:
        (folder / name).mkdir()
        ir.save(graph(f"float[{name}] x"), folder / name / "model.onnx")
    return SimpleNamespace(
        folder=folder,
        target="cpu",
        submodels=[SimpleNamespace(name=name, role=f"role of {name}") for name in names],
        graph=lambda name: folder / name / "model.onnx",
        recipe=Recipe(),
    )


def test_the_graphs_of_a_package_are_read_with_their_roles(tmp_path: Path) -> None:
    torn = package(tmp_path, "unet", "vae_decoder", "text_encoder")
    with pytest.raises(ConversionError) as caught:
        package_graphs(torn)
    assert (caught.value.code, caught.value.hint) == ("package.torn", "Convert again.")
    assert caught.value.message == f"The package {tmp_path} has no text_encoder/model.onnx."
    torn.submodels.pop()
    found = package_graphs(torn)
    assert found.roles == {"unet": "role of unet", "vae_decoder": "role of vae_decoder"}
    assert {name: model.graph.inputs[0].shape for name, model in found.models.items()} == {
        "unet": ["unet"],
        "vae_decoder": ["vae_decoder"],
    }
    assert found.recipe is torn.recipe


def test_attention_is_sliced_for_a_provider_that_keeps_all_scores() -> None:
    attention = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float16[batch, length, 8] q) => (float16[batch, length, 8] y)
    { y = com.microsoft.MultiHeadAttention <num_heads = 8> (q, q, q) }
    """)
    recipe: Any = SimpleNamespace(sizes=lambda _, size: {"batch": size.images, "length": 4096})
    graphs = PipelineGraphs(
        models={"unet": ir.from_proto(attention)},
        roles={"unet": "denoiser"},
        provider=provider_for("directml"),
        recipe=recipe,
    )
    for images, provider, count in ((1, "directml", 1), (2, "directml", 2), (2, "cpu", 1)):
        size = ImageSize(width=512, height=512, images=images)
        fixed = graphs.run_by(provider_for(provider)).at("unet", size)
        attentions = [node for node in fixed.graph if node.op_type == "MultiHeadAttention"]
        assert len(attentions) == count, provider
        assert attentions[0].outputs[0].shape == [images if count == 1 else 1, 4096, 8]
    assert graphs.models["unet"].graph.inputs[0].shape == ["batch", "length", 8]

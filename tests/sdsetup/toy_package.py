"""A package whose submodels are a few operators each: real graphs and files, ready in milliseconds.

It makes patterns that depend on the prompt, the seed and the size, so whatever breaks on the way shows.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from conversions.package.layout import FORMAT, record
from tests.sdsetup.imaging import clip_vocabulary

WIDTH = 8
GRAPHS = {
    "text_encoder": """
        (int32[batch, sequence] input_ids) =>
        (F[batch, sequence, 8] last_hidden_state, F[batch, 8] pooler_output) {
            last_hidden_state = Gather(table, input_ids)
            pooler_output = ReduceMean<keepdims = 0>(last_hidden_state, one)
        }""",
    "unet": """
        (F[batch, 4, height, width] sample, float[1] timestep, F[batch, sequence, 8] encoder_hidden_states) =>
        (F[batch, 4, height, width] out_sample) {
            meaning = ReduceMean<keepdims = 0>(encoder_hidden_states, one)
            wish = MatMul(meaning, listen)
            wishes = Unsqueeze(wish, last_two)
            seen = Conv<pads = [1, 1, 1, 1]>(sample, kernel)
            time = CastLike(timestep, sample)
            late = Mul(time, slow)
            sum = Add(seen, wishes)
            all = Add(sum, late)
            out_sample = Tanh(all)
        }""",
    "vae_decoder": """
        (F[batch, 4, height, width] latent_sample) => (F[batch, 3, tall, wide] sample) {
            large = Resize<mode = "nearest">(latent_sample, , scales)
            colours = Conv(large, mix)
            lifted = Add(colours, lift)
            sample = Tanh(lifted)
        }""",
    "safety_checker": """
        (F[batch, 3, 224, 224] clip_input, F[batch, height, width, 3] images) =>
        (F[batch, height, width, 3] out_images, bool[batch] has_nsfw_concepts) {
            mean = ReduceMean<keepdims = 0>(clip_input, all_but_first)
            has_nsfw_concepts = Greater(mean, limit)
            out_images = Identity(images)
        }""",
    "vae_encoder": """
        (F[batch, 3, tall, wide] sample) => (F[batch, 8, height, width] latent_parameters) {
            pooled = AveragePool<kernel_shape = [8, 8], strides = [8, 8]>(sample)
            latent_parameters = Conv(pooled, spread)
        }""",
}


def weights(vocabulary: int, objects_above: float) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(11)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * random.standard_normal(shape)).astype(np.float32)

    return {
        "text_encoder": {"table": normal(vocabulary, WIDTH), "one": np.array([1])},
        "unet": {
            "one": np.array([1]),
            "last_two": np.array([2, 3]),
            "listen": normal(WIDTH, 4),
            "kernel": normal(4, 4, 3, 3, scale=0.2),
            "slow": np.array([0.001], np.float32),
        },
        "vae_decoder": {
            "scales": np.array([1, 1, 8, 8], np.float32),
            "mix": normal(3, 4, 1, 1, scale=0.2),
            "lift": np.array([0], np.float32),
        },
        "safety_checker": {
            "all_but_first": np.array([1, 2, 3]),
            "limit": np.array([objects_above], np.float32),
        },
        "vae_encoder": {"spread": normal(8, 3, 1, 1)},
    }


def write(
    folder: Path,
    *,
    precision: str = "fp32",
    change: dict[str, dict[str, np.ndarray]] | None = None,
    graphs: dict[str, str] | None = None,
    objects_above: float | None = None,
    encodes: bool = False,
) -> Path:
    """Write a package.

    Args:
        folder: Where to.
        precision: "fp32" or "fp16".
        change: Weights to replace or add, by submodel and name.
        graphs: Graphs to replace, by submodel.
        objects_above: Add a safety checker that objects to images of this normalised mean.
        encodes: Add an image encoder.
    """
    clip_vocabulary.write(folder / "tokenizer", config={"model_max_length": 77})
    vocabulary = len(json.loads((folder / "tokenizer" / "vocab.json").read_text(encoding="utf-8")))
    configs = {
        "text_encoder": {"max_position_embeddings": 77},
        "unet": {"in_channels": 4, "sample_size": 8, "_diffusers_version": "0.42.1"},
        "vae_decoder": {"scaling_factor": 3.0, "block_out_channels": [1, 1, 1, 1]},
    }
    for submodel, values in weights(vocabulary, objects_above or 0.0).items():
        if (submodel, objects_above) == ("safety_checker", None) or (submodel, encodes) == (
            "vae_encoder",
            False,
        ):
            continue
        values |= (change or {}).get(submodel, {})
        kind = "float16" if precision == "fp16" else "float"
        header = '<ir_version: 10, opset_import: ["" : 18]>\n' + f"{submodel} "
        model = parser.parse_model(header + (GRAPHS | (graphs or {}))[submodel].replace("F[", f"{kind}["))
        for name, value in values.items():
            keep = value.dtype != np.float32 or name == "scales" or precision == "fp32"
            typed = value if keep else value.astype(np.float16)
            model.graph.initializer.append(numpy_helper.from_array(typed, name))
        onnx.checker.check_model(model, full_check=True)
        (folder / submodel).mkdir()
        onnx.save(
            model,
            folder / submodel / "model.onnx",
            save_as_external_data=True,
            location="model.onnx_data",
            size_threshold=100,
        )
        write_json(folder / submodel / "config.json", configs.get(submodel, {}))
    scheduler = {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
    }
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    write_manifest(folder, precision)
    return folder


def write_manifest(folder: Path, precision: str = "fp32") -> None:
    """Write down what the package now holds."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    manifest = {
        "format": FORMAT,
        "checkpoint": {"origin": "toy_package", "commit": None, "sha256": {}},
        "pipeline": "StableDiffusionPipeline",
        "precision": precision,
        "target": "cpu",
        "submodels": {path.parent.name: {} for path in files if path.name == "model.onnx"},
        "files": {path.relative_to(folder).as_posix(): vars(record(path)) for path in files},
    }
    write_json(folder / "manifest.json", manifest)


def write_json(path: Path, document: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")

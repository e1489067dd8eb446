"""What is made on Linux for the DirectML tests: packages, and what their submodels answer on the CPU.

FOLDER/package                  float16, made for DirectML by ``sdsetup convert``
FOLDER/xl-fp16, xl-int4         a small Stable Diffusion XL in both precisions
FOLDER/families                 see ``family_shipment``
FOLDER/reference/SUBMODEL.npz   the same checkpoint in float32 on Linux's CPU provider:
                                ``in.NAME`` and ``out.NAME`` tensors, ``size.NAME`` of each free dimension
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.windows import family_shipment

# The U-Net's residual stream then deviates by some 600: more than DirectML's float16 norms can take.
GROWN = 1000
IN_EVERY_RUN = ("z-image turbo",)


def make(folder: Path) -> None:
    """Convert a small Stable Diffusion with all five submodels and note the answers to look for.

    Args:
        folder: An existing folder to fill.
    """
    from conversions.events import ignore
    from conversions.options import Options, Precision
    from conversions.package.layout import open_package
    from conversions.providers import onnx_session
    from conversions.providers.devices import CPU
    from conversions.verification.reference import make_inputs
    from sdsetup.checkpoint_source import CheckpointRequest
    from sdsetup.workflow import ConvertRequest, convert_model
    from tests.checkpoints import VARIANTS, make_tiny, make_variant

    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = make_tiny(Path(temporary) / "checkpoint")
        unet = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(unet)
        save_file({**tensors, "conv_in.weight": tensors["conv_in.weight"] * np.float32(GROWN)}, unet)
        for output, options in (
            (folder / "package", Options(target="directml", precision="fp16")),
            (Path(temporary) / "cpu", Options(target="cpu", precision="fp32")),
        ):
            checkpoint_request = CheckpointRequest(model=str(checkpoint))
            convert_model(
                ConvertRequest(
                    checkpoint_request=checkpoint_request, options=options, output=output, verify=False
                ),
                ignore,
            )
        convert_model(
            ConvertRequest(
                checkpoint_request=CheckpointRequest(model="demo"),
                options=Options(target="directml"),
                output=folder / "demo-package",
            ),
            ignore,
        )
        large = make_variant(Path(temporary) / "xl", VARIANTS["stable-diffusion-xl"])
        precisions: tuple[Precision, ...] = ("fp16", "int4")
        for precision in precisions:
            convert_model(
                ConvertRequest(
                    checkpoint_request=CheckpointRequest(model=str(large)),
                    options=Options(target="directml", precision=precision),
                    output=folder / f"xl-{precision}",
                    verify=False,
                ),
                ignore,
            )
        family_shipment.make(folder, IN_EVERY_RUN, int4=False)
        package = open_package(Path(temporary) / "cpu")
        (folder / "reference").mkdir()
        for submodel in package.submodels:
            graph = package.graph(submodel.name)
            kind = submodel.kind
            inputs = make_inputs(kind, package.config(submodel.name), kind.sizes)
            outcome = onnx_session.run(graph, inputs, CPU, kind.sizes)
            np.savez(
                folder / "reference" / f"{submodel.name}.npz",
                **{f"in.{name}": tensor for name, tensor in inputs.items()},
                **{f"out.{name}": tensor for name, tensor in outcome.outputs.items()},
                **{f"size.{name}": size for name, size in kind.sizes.items()},
            )

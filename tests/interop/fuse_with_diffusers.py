"""Fuse adapters as diffusers does, and draw: run by a Python that has PEFT, as ``python FILE JSON``.

The JSON names the ``checkpoint``, the ``pipeline``'s class, the ``adapters`` as pairs of a path and a weight,
the ``latents`` (.npy) to start from, the ``prompt``, ``steps``, ``guidance_scale``, the image's ``width`` and
``height``, and the file to write: the ``weights`` by name and the ``image``, uint8.
"""

import json
import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")


def main(job: dict) -> None:
    import diffusers
    import torch
    from safetensors.numpy import save_file

    pipeline = getattr(diffusers, job["pipeline"]).from_pretrained(job["checkpoint"])
    pipeline.set_progress_bar_config(disable=True)
    for place, (path, weight) in enumerate(job["adapters"]):
        folder, _, name = path.rpartition("/")
        pipeline.load_lora_weights(folder, weight_name=name, adapter_name=f"a{place}")
        pipeline.set_adapters([f"a{place}"])
        pipeline.fuse_lora(
            components=[
                each for each in ("unet", "text_encoder", "text_encoder_2") if hasattr(pipeline, each)
            ],
            lora_scale=weight,
            adapter_names=[f"a{place}"],
        )
        pipeline.unload_lora_weights()
    weights = {
        f"{component} {name}": value.detach().numpy()
        for component in COMPONENTS
        if getattr(pipeline, component, None) is not None
        for name, value in getattr(pipeline, component).state_dict().items()
        if value.is_floating_point()
    }
    with torch.no_grad():
        image = pipeline(
            job["prompt"],
            latents=torch.from_numpy(np.load(job["latents"])),
            num_inference_steps=job["steps"],
            guidance_scale=job["guidance_scale"],
            width=job["width"],
            height=job["height"],
            output_type="np",
        ).images[0]
    pixels = np.ascontiguousarray((image * 255).round().astype(np.uint8))  # save_file knows no strides
    save_file({**weights, "image": pixels}, job["output"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

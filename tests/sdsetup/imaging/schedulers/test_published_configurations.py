"""Configurations that published checkpoints have, against diffusers' own classes."""

import numpy as np
import pytest

from tests.sdsetup.imaging.schedulers.trajectories import CLASSES, SD14, compare

pytestmark = pytest.mark.torch

SDXL = SD14 | {
    "_class_name": "EulerDiscreteScheduler",
    "sample_max_value": 1.0,
    "interpolation_type": "linear",
}
PUBLISHED = {
    "sdxl-base": ("euler", SDXL | {"timestep_spacing": "leading", "use_karras_sigmas": False}, 30, {}),
    "sdxl-turbo": ("euler_ancestral", SDXL | {"timestep_spacing": "trailing"}, 1, {}),
    "sdxl-turbo-4": ("euler_ancestral", SDXL | {"timestep_spacing": "trailing"}, 4, {}),
    "sdxl-lightning": ("euler", SDXL | {"timestep_spacing": "trailing"}, 4, {}),
    "sdxl-lightning-sgm-uniform": ("euler", SDXL | {"timestep_spacing": "trailing"}, 8, {}),
    "hyper-sd-tcd": ("tcd", SDXL, 8, {"eta": 1.0}),
    "hyper-sd-ddim": ("ddim", SDXL | {"timestep_spacing": "trailing"}, 4, {}),
    "dmd2": ("lcm", SDXL, 4, {}),
    "lcm-dreamshaper": (
        "lcm",
        SD14 | {"_class_name": "LCMScheduler", "set_alpha_to_one": True, "original_inference_steps": 50},
        8,
        {},
    ),
    "sd-2-1": ("ddim", SD14 | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}, 25, {}),
    "playground-2": ("euler", SDXL | {"use_karras_sigmas": True, "timestep_spacing": "leading"}, 25, {}),
    "dreamshaper-deis": (
        "deis",
        SD14 | {"algorithm_type": "deis", "solver_type": "logrho", "solver_order": 2},
        25,
        {},
    ),
    "sd-3": ("flow_match_euler", {"_class_name": CLASSES["flow_match_euler"], "shift": 3.0}, 28, {}),
    "flux-schnell": (
        "flow_match_euler",
        {"base_shift": 0.5, "max_shift": 1.15, "shift": 1.0, "use_dynamic_shifting": False},
        4,
        {"sigmas": [1.0, 0.75, 0.5, 0.25]},
    ),
    "flux-dev": (
        "flow_match_euler",
        {"base_shift": 0.5, "max_shift": 1.15, "shift": 3.0, "use_dynamic_shifting": True},
        28,
        {"mu": 1.15, "sigmas": np.linspace(1, 1 / 28, 28).tolist()},
    ),
    "sana": (
        "dpmpp_2m",
        {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"},
        20,
        {},
    ),
    "wan": (
        "unipc",
        {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"},
        20,
        {},
    ),
}


@pytest.mark.parametrize("published", PUBLISHED)
def test_published_configurations_are_those_of_diffusers(published):
    name, config, steps, options = PUBLISHED[published]
    compare(name, config, steps, **options)
    if steps > 1 and published not in ("sana", "wan"):
        compare(name, config, steps, strength=0.6, **options)

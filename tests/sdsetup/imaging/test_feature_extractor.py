import numpy as np
import pytest

from sdsetup.imaging.feature_extractor import extract

CONFIGS = {
    "sd 1.4": {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 224,
    },
    "today": {
        "crop_size": {"height": 224, "width": 224},
        "size": {"shortest_edge": 224},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "resample": 2,
    },
    "another size": {
        "size": {"shortest_edge": 97},
        "crop_size": {"height": 80, "width": 80},
    },
    "empty": {},
}


@pytest.mark.torch
@pytest.mark.parametrize("size", [(64, 64), (512, 512), (72, 200), (301, 224), (225, 227)])
@pytest.mark.parametrize("config", CONFIGS)
def test_pixels_are_those_of_transformers(config, size):
    from transformers import CLIPImageProcessorPil

    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    reference = CLIPImageProcessorPil(**CONFIGS[config])(list(images), return_tensors="np").pixel_values
    np.testing.assert_allclose(extract(images, CONFIGS[config]), reference, atol=1e-5)


@pytest.mark.torch
def test_a_size_of_two_sides_is_that_of_transformers_for_square_images():
    from transformers import CLIPImageProcessorPil

    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    config = {"size": {"height": 90, "width": 90}, "crop_size": {"height": 70, "width": 70}}
    reference = CLIPImageProcessorPil(**config)(list(images), return_tensors="np").pixel_values
    np.testing.assert_allclose(extract(images, config), reference, atol=1e-5)

"""From nothing to Stable Diffusion pictures on a GPU that is not NVIDIA's."""

__version__ = "0.1.0"

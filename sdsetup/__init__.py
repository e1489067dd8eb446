"""From nothing to Stable Diffusion images on a GPU that is not NVIDIA's."""

__version__ = "0.1.0"

"""Convert Stable Diffusion checkpoints to ONNX packages; a library that never prints and opens no socket."""

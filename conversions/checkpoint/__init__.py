"""Checkpoints: where their files are, and which tensors they hold."""

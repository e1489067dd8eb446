"""Weights: match stored tensors to initializers, cast them and write external data."""

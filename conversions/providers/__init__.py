"""Execution providers of ONNX Runtime: their table, kernels, devices and sessions."""

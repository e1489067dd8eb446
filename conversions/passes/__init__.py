"""Graph passes: one file each, working in place on an ``onnx_ir.Model`` whose weights may have no values."""

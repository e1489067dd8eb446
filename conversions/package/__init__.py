"""An ONNX package on disk: its layout, manifest and metadata files."""

"""Running a package's submodels on ONNX Runtime: devices, sessions, and a worker process for fragile ones."""

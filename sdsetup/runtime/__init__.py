"""Run a package's submodels on ONNX Runtime: devices, sessions, runners, worker process."""

"""Verify a package: files, graphs, where nodes run, and numbers against PyTorch."""

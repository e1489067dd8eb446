"""Runs tests under a real Windows Python, with the true DirectML, on a Linux machine.

``python -m tests.windows setup`` builds the root once; ``python -m tests.windows run ARGS`` runs pytest.
What this shows and what it does not: docs/explanation/testing-windows.md.
"""

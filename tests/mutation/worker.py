"""A pytest plugin in place of pytest-xdist: a worker shares its folder with other runs, a master does not."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def worker_id() -> str:
    return os.environ["MUTATION_WORKER"]

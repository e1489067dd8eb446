"""Which tests run where: Windows Python has no torch, and Linux has no Windows."""

import importlib.util
import os
import sys
import sysconfig

import pytest

pytest_plugins = ["tests.fixtures"]

# As in a terminal in which the environment is activated: messages name the command as `sdsetup`.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])

# A worker has one core, or shares it: two processes with a thread for each core wait for one another at every
# operator, which costs several times what it computes. What they start inherits it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if sys.platform != "win32":
        elsewhere = pytest.mark.skip(reason="runs under Windows: python -m tests.windows run")
        for item in items:
            if item.get_closest_marker("windows") or item.get_closest_marker("directml"):
                item.add_marker(elsewhere)
    else:
        # By far the longest; begun last, it would keep one worker while the others have nothing left to do.
        items.sort(key=lambda item: item.path.name != "test_first_image.py")
    if "robustness" not in config.getoption("-m"):
        long = [item for item in items if item.get_closest_marker("robustness") is not None]
        if long:
            config.hook.pytest_deselected(items=long)
            items[:] = [item for item in items if item not in long]
    if importlib.util.find_spec("torch") is None:
        without_torch = [item for item in items if item.get_closest_marker("torch") is None]
        if len(without_torch) < len(items):
            config.hook.pytest_deselected(items=[item for item in items if item not in without_torch])
            items[:] = without_torch

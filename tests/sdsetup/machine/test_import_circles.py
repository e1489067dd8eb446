"""No module imports one that imports it back, not even inside a function."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests there have no sources")

ROOT = Path(__file__).parents[3]
FREE_OF_CIRCLES = ("sdsetup.bootstrap", "sdsetup.machine", "sdsetup.doctor")


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules else node.module)
    return found & modules.keys()


def test_there_is_no_circle() -> None:
    modules = {}
    for path in (ROOT / "sdsetup").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {
        name: {other for other in _imports(path, modules) - {name} if other.startswith(FREE_OF_CIRCLES)}
        for name, path in modules.items()
        if name.startswith(FREE_OF_CIRCLES)
    }
    assert len(graph) > 40
    order = tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert set(order) == set(graph)

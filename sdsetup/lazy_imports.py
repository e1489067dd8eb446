"""Leave modules unloaded until something of them is used.

This runs before folders of other programs are taken out of ``sys.path``, so it imports nothing that Python
has not loaded to start.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_LAZY = frozenset({"sympy", "onnx_ir._symbolic_shapes"})
"""onnx_ir computes terms of dimensions with sympy: half of the time to start, and seldom asked for."""


class _LazyFinder:
    """Finds the modules of ``_LAZY`` and no others."""

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None", target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if fullname not in _LAZY:
            return None
        from importlib.machinery import PathFinder
        from importlib.util import LazyLoader

        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def install() -> None:
    """Let later imports of the modules be lazy, where Python loads such modules in one thread alone."""
    if loads_in_one_thread(sys.version_info[:3]):
        sys.meta_path.insert(0, _LazyFinder())


def loads_in_one_thread(version: "tuple[int, ...]") -> bool:
    """Say whether a Python never loads a lazy module in two threads at once.

    Source: CPython's gh-114763, mended in 3.11.9 and 3.12.3.
    """
    return (3, 11, 9) <= version < (3, 12) or version >= (3, 12, 3)

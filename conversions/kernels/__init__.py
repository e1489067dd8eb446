"""What execution providers have kernels for, as tables: one ``.tsv`` file a provider, written in one form.

Only DirectML has a file: the machines that convert or test mostly have no DirectML to ask. The other
providers can be asked where they are installed, with :func:`live_kernels`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

ANY_TYPE = "sequence"
"""Stands for a type parameter whose values are no plain tensors."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel of a provider.

    Attributes:
        operator: ``domain.Name``; no domain for ``ai.onnx``.
        since: Version of the operator's schema that this kernel answers to, and no other.
        types: For every type parameter of the schema, the element types it takes (``"f16"``).
        host_inputs: Inputs that are read on the CPU, so a fused graph wants them to be initializers.
        fusible: Whether a node of it may be part of a fused graph.
        fused_inputs: How many inputs a fused node must have; None when that does not matter.
        rule: Name of the attribute rule, empty when every attribute is taken.
    """

    operator: str
    since: int
    types: dict[str, frozenset[str]]
    host_inputs: frozenset[int] = frozenset()
    fusible: bool = True
    fused_inputs: int | None = None
    rule: str = ""


KernelTable = dict[tuple[str, int], Kernel]
"""Kernels by operator and since-version."""


@cache
def load_table(provider: str) -> KernelTable:
    """Read the kernel table of a provider.

    Args:
        provider: The table's file name without ending, for example ``"directml"``.

    Returns:
        Kernels by ``(operator, since)``.
    """
    sets: dict[str, frozenset[str]] = {}
    table: KernelTable = {}
    text = files(__name__).joinpath(f"{provider}.tsv").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("# set "):
            name, _, members = line.removeprefix("# set ").partition(" = ")
            sets[name] = frozenset(members.split())
        elif line and not line.startswith(("#", "operator\t")):
            for kernel in _row(line, sets):
                table[kernel.operator, kernel.since] = kernel
    return table


def _row(line: str, sets: dict[str, frozenset[str]]) -> list[Kernel]:
    operator, since, types, host, place, inputs, rule = line.split("\t")
    parameters = dict(part.split("=") for part in types.split())
    return [
        Kernel(
            operator=operator,
            since=int(version),
            types={key: sets.get(value) or frozenset(value.split("+")) for key, value in parameters.items()},
            host_inputs=frozenset(int(index) for index in host.split(",")) if host != "-" else frozenset(),
            fusible=place == "fused",
            fused_inputs=int(inputs) if inputs != "-" else None,
            rule=rule if rule != "-" else "",
        )
        for version in since.split(",")
    ]


def versions(table: KernelTable, operator: str) -> list[int]:
    """Since-versions of an operator that have a kernel, ascending."""
    return sorted(since for name, since in table if name == operator)


def live_kernels(provider: str) -> dict[str, frozenset[int]]:
    """Ask the installed ONNX Runtime which operators a provider has kernels for.

    Args:
        provider: ONNX Runtime's name, for example ``"DmlExecutionProvider"``.

    Returns:
        Operator (``domain.Name``) to the first schema version of each of its kernels; empty when the
        installed ONNX Runtime has no such provider or was built without this question.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    if not hasattr(native, "get_all_opkernel_def"):
        return {}
    found: dict[str, set[int]] = defaultdict(set)
    for kernel in native.get_all_opkernel_def():
        if kernel.provider == provider:
            domain = f"{kernel.domain}." if kernel.domain not in ("", "ai.onnx") else ""
            found[f"{domain}{kernel.op_name}"].add(kernel.version_range[0])
    return {operator: frozenset(since) for operator, since in found.items()}

"""Kernel tables of execution providers: one ``.tsv`` file per provider.

Only DirectML has one, since most machines that convert or test have no DirectML. The other
providers are queried where they are installed, with :func:`live_kernels`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

NOT_A_TENSOR = "sequence"
"""Stands for a type parameter whose values are not plain tensors."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel of a provider.

    Attributes:
        operator: ``domain.Name``; no domain for ``ai.onnx``.
        since: The one version of the operator's schema that this kernel implements.
        types: For each type parameter of the schema, the supported element types (``"f16"``).
        host_inputs: Inputs that are read on the CPU; in a fused graph they must be initializers.
        fusible: Whether its nodes can be part of a fused graph.
        fused_inputs: Number of inputs that a fused node must have; None for any.
        rule: Name of the attribute rule; empty when all attributes are supported.
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


def live_kernels(provider: str) -> dict[tuple[str, int], dict[str, frozenset[str]]]:
    """List the kernels of a provider in the installed ONNX Runtime.

    Args:
        provider: ONNX Runtime's name, for example ``"DmlExecutionProvider"``.

    Returns:
        For every operator (``domain.Name``) and first schema version of a kernel, the element types of each
        type parameter; empty when the installed ONNX Runtime has no such provider or cannot be asked.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    if not hasattr(native, "get_all_opkernel_def"):
        return {}
    found: dict[tuple[str, int], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for kernel in native.get_all_opkernel_def():
        if kernel.provider == provider:
            domain = f"{kernel.domain}." if kernel.domain not in ("", "ai.onnx") else ""
            types = found[f"{domain}{kernel.op_name}", kernel.version_range[0]]
            for parameter, names in kernel.type_constraints.items():
                types[parameter] |= {_short(name) for name in names}
    return {key: {name: frozenset(kinds) for name, kinds in types.items()} for key, types in found.items()}


def _short(name: str) -> str:
    """``tensor(float16)`` -> ``f16``; anything but a plain tensor becomes ``sequence``."""
    element = name.removeprefix("tensor(").removesuffix(")")
    if "(" in element or name == element:
        return NOT_A_TENSOR
    floats = {"float": "f32", "float16": "f16", "double": "f64", "bfloat16": "bf16"}
    return floats.get(element) or element.replace("uint", "u").replace("int", "i")

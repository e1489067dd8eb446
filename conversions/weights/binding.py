"""Match checkpoint tensors to initializers; missing and misshapen ones are errors, others are reported."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError
from conversions.family import Submodel
from conversions.graph_kind import Rename
from conversions.passes.simplify import TRANSPOSED

# Alignment of large tensors in bytes, so that a session can memory-map them.
# Source: the alignment that onnx's docs/ExternalData.md recommends.
_PAGE_BYTES = 4096
_SMALL_ALIGNMENT_BYTES = 64
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Binding:
    """One initializer, the stored tensor it comes from, and its place in the external data file.

    Attributes:
        initializer: Name in the graph.
        source: The stored tensor.
        dtype: Element type in the package.
        shape: Dimensions in the package.
        transposed: Whether the stored matrix is transposed when written.
        offset: First byte in the external data file.
    """

    initializer: str
    source: StoredTensor
    dtype: ir.DataType
    shape: tuple[int, ...]
    transposed: bool
    offset: int

    @property
    def size_bytes(self) -> int:
        """Size of the tensor in the package."""
        return _size_bytes(self.shape, self.dtype)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The weights of all graphs made from one component.

    Attributes:
        bindings: For each submodel its bindings, in the order in which their bytes lie in the checkpoint.
        ignored: Names of stored tensors that nothing uses, sorted: diffusers and transformers warn of such
            tensors and load the rest. Buffers once stored (``position_ids``) are not named, as there.
    """

    bindings: Mapping[str, list[Binding]]
    ignored: tuple[str, ...]

    def notice(self, component: str) -> str:
        """Return one sentence that names the ignored tensors; empty when there are none."""
        if not self.ignored:
            return ""
        return (
            f"{component}: {_list(self.ignored)} in the checkpoint "
            f"{'has' if len(self.ignored) == 1 else 'have'} no place in the model that its config.json "
            "describes and will not be used, as diffusers does."
        )


def bind(
    component: str,
    graphs: Sequence[tuple[Submodel, ir.Model]],
    tensors: Mapping[str, StoredTensor],
) -> Bound:
    """Match the weights of all graphs made from one component with the component's tensors.

    Args:
        component: The component's name, for messages.
        graphs: Each submodel of the component with its graph.
        tensors: The stored tensors by name.

    Returns:
        The bindings, and the tensors that the reference loader would ignore.

    Raises:
        ConversionError: ``weights.missing``, ``weights.shape`` or ``weights.ambiguous``, with names.
    """
    wanted = {name for _, model in graphs for name in _weights(model)}
    submodel = graphs[0][0]
    by_name = _rename(component, tensors, wanted, submodel.kind.renames)
    missing = sorted(wanted - set(by_name))
    used = {tensor.name for tensor in by_name.values()}
    surplus = sorted(
        name
        for name in set(tensors) - used
        if not any(re.search(pattern, name) for pattern in submodel.kind.unused)
    )
    if missing:
        raise ConversionError(
            "weights.missing",
            f"The component {component!r} lacks {_list(missing)}, which its configuration requires"
            + (f", and holds {_list(surplus)} that it does not." if surplus else "."),
            f"The weights and {component}/config.json do not belong together; download the checkpoint again.",
        )
    bindings = {each.name: _lay_out(component, model, by_name) for each, model in graphs}
    return Bound(bindings=bindings, ignored=tuple(surplus))


def _weights(model: ir.Model) -> dict[str, ir.Value]:
    return {name: value for name, value in model.graph.initializers.items() if value.const_value is None}


def _rename(
    component: str, tensors: Mapping[str, StoredTensor], wanted: set[str], renames: Sequence[Rename]
) -> dict[str, StoredTensor]:
    """Map each stored tensor to its name in the graph: its own, or the first matching rename."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        known = next((each for each in _candidates(name, renames) if each in wanted), None)
        if known is None:
            continue
        if known in found:
            raise ConversionError(
                "weights.ambiguous",
                f"The component {component!r} holds {found[known].name} and {name}, two names of one weight.",
                "Remove the one that does not belong to the checkpoint, or download it again.",
            )
        found[known] = tensor
    return found


def _candidates(name: str, renames: Sequence[Rename]) -> Iterable[str]:
    yield name
    for rename in renames:
        changed, count = re.subn(rename.pattern, rename.replacement, name)
        if count:
            yield changed


def _lay_out(component: str, model: ir.Model, by_name: Mapping[str, StoredTensor]) -> list[Binding]:
    weights = _weights(model)
    order = sorted(weights, key=lambda name: (by_name[name].file, by_name[name].offset))
    bindings, end = [], 0
    for name in order:
        value, source = weights[name], by_name[name]
        assert value.shape is not None
        assert value.dtype is not None
        shape = tuple(int(size) for size in value.shape.numpy())
        transposed = TRANSPOSED in value.metadata_props
        expected = shape[::-1] if transposed else shape
        if _significant(source.shape) != _significant(expected):
            raise ConversionError(
                "weights.shape",
                f"The tensor {source.name} of {component!r} has the shape {list(source.shape)}; "
                f"its configuration asks for {list(expected)}.",
                f"The weights and {component}/config.json do not belong together; "
                "download the checkpoint again.",
            )
        binding = Binding(
            initializer=name,
            source=source,
            dtype=value.dtype,
            shape=shape,
            transposed=transposed,
            offset=_aligned(end, _size_bytes(shape, value.dtype)),
        )
        end = binding.offset + binding.size_bytes
        bindings.append(binding)
    return bindings


def _significant(shape: Iterable[int]) -> tuple[int, ...]:
    """Drop axes of length one, so that a 1x1 convolution matches a matrix."""
    return tuple(size for size in shape if size != 1)


def _size_bytes(shape: Iterable[int], dtype: ir.DataType) -> int:
    return math.prod(shape) * int(dtype.itemsize)


def _aligned(offset: int, size_bytes: int) -> int:
    step = _PAGE_BYTES if size_bytes >= _PAGE_BYTES else _SMALL_ALIGNMENT_BYTES
    return -(-offset // step) * step


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} tensor{'s' * (len(names) != 1)} ({', '.join(names[:_SHOWN])}{more})"

"""Match checkpoint tensors to initializers; missing and misshapen ones are errors, others are reported."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError
from conversions.family import Submodel
from conversions.graph_kind import Rename
from conversions.passes.quantize_weights import QUANTIZED
from conversions.passes.simplify import TRANSPOSED
from conversions.weights.expression import Expression, Reshape, Scale, Stored, Tensors, Transpose
from conversions.weights.quantize import BITS, QuantizationScales, QuantizedCodes, ZeroPoints

# Alignment of large tensors in bytes, so that a session can memory-map them.
# Source: the alignment that onnx's docs/ExternalData.md recommends.
_PAGE_BYTES = 4096
_SMALL_ALIGNMENT_BYTES = 64
_SHOWN = 8

STORED_TYPES = {"F16": ir.DataType.FLOAT16, "F32": ir.DataType.FLOAT}
"""Element types of a package by the name that safetensors gives them."""

ELEMENT_TYPES_OF = {"fp16": ir.DataType.FLOAT16, "fp32": ir.DataType.FLOAT}
"""Element types of weights by whether a submodel computes in float16 or float32."""


@dataclass(frozen=True, kw_only=True)
class Binding:
    """One initializer, where its values come from, and its place in an external data file.

    Attributes:
        initializer: Name in the graph.
        source: What its values are.
        dtype: Element type in the package.
        shape: Dimensions in the package.
        offset: First byte in the external data file.
        linked: Name of the checkpoint's file that it stays in; empty where its values are written.
    """

    initializer: str
    source: Expression
    dtype: ir.DataType
    shape: tuple[int, ...]
    offset: int
    linked: str = ""

    @property
    def size_bytes(self) -> int:
        """Size of the tensor in the package."""
        return _size_bytes(self.shape, self.dtype)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The weights of all graphs made from one component.

    Attributes:
        bindings: For each submodel its bindings, in the order in which their bytes lie in the checkpoint.
            What is linked comes last.
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
    tensors: Tensors,
    linked: Collection[str] = (),
) -> Bound:
    """Match the weights of all graphs made from one component with the component's tensors.

    Args:
        component: The component's name, for messages.
        graphs: Each submodel of the component with its graph.
        tensors: The component's weights by name.
        linked: Files of the checkpoint that can be linked into the package: what they hold as the graph wants
            it stays where it is.

    Returns:
        The bindings, and the tensors that the reference loader would ignore.

    Raises:
        ConversionError: ``weights.missing``, ``weights.shape`` or ``weights.ambiguous``, with names.
    """
    wanted = {_stored_name(value) for _, model in graphs for value in _weights(model).values()}
    submodel = graphs[0][0]
    by_name = match_names(component, tensors, wanted, submodel.kind.renames)
    missing = sorted(wanted - set(by_name))
    used = {id(tensor) for tensor in by_name.values()}
    surplus = sorted(
        name
        for name, tensor in tensors.items()
        if id(tensor) not in used and not any(re.search(pattern, name) for pattern in submodel.kind.unused)
    )
    if missing:
        raise ConversionError(
            "weights.missing",
            f"The component {component!r} lacks {_list(missing)}, which its configuration requires"
            + (f", and holds {_list(surplus)} that it does not." if surplus else "."),
            f"The weights and {component}/config.json do not belong together; download the checkpoint again.",
        )
    scaled = {name: _scaled(each, submodel.kind.scale_of(name)) for name, each in by_name.items()}
    bindings = {each.name: _lay_out(component, model, scaled, linked) for each, model in graphs}
    return Bound(bindings=bindings, ignored=tuple(surplus))


def _scaled(weight: Expression, factor: float) -> Expression:
    return weight if factor == 1 else Scale(of=weight, factor=factor)


def _weights(model: ir.Model) -> dict[str, ir.Value]:
    return {name: value for name, value in model.graph.initializers.items() if value.const_value is None}


def match_names(
    component: str, tensors: Tensors, wanted: Collection[str], renames: Sequence[Rename]
) -> dict[str, Expression]:
    """Map each tensor that is wanted to its name: its own, or the first rename that gives a wanted one.

    Raises:
        ConversionError: ``weights.ambiguous``; two tensors have one name.
    """
    found: dict[str, Expression] = {}
    names: dict[str, str] = {}
    copied = set(_renamed(tensors, [rename for rename in renames if rename.copy]))
    for name, tensor in tensors.items():
        candidates = (*(() if name in copied else (name,)), *_renamed((name,), renames))
        known = next((each for each in candidates if each in wanted), None)
        if known is None:
            continue
        if known in found:
            raise ConversionError(
                "weights.ambiguous",
                f"The component {component!r} holds {names[known]} and {name}, two names of one weight.",
                "Remove the one that does not belong to the checkpoint, or download it again.",
            )
        found[known] = tensor
        names[known] = name
    return found


def _renamed(names: Iterable[str], renames: Sequence[Rename]) -> Iterable[str]:
    for name in names:
        for rename in renames:
            changed, count = re.subn(rename.pattern, rename.replacement, name)
            if count:
                yield changed


def demand_shapes(
    component: str, tensors: Tensors, wanted: Mapping[str, tuple[int, ...]], renames: Sequence[Rename]
) -> None:
    """Check the shapes of a component's tensors against those that its configuration gives its class.

    Args:
        component: Its name, for messages.
        tensors: Its weights by name; those that the class does not have are passed over.
        wanted: Shapes of the class's weights by name.
        renames: Older names of weights.

    Raises:
        ConversionError: ``weights.shape`` or ``weights.ambiguous``, with names.
    """
    for name, tensor in match_names(component, tensors, wanted, renames).items():
        if _significant(tensor.shape) != _significant(wanted[name]):
            raise _other_shape(component, tensor, wanted[name])


def _other_shape(component: str, source: Expression, expected: Sequence[int]) -> ConversionError:
    return ConversionError(
        "weights.shape",
        f"The tensor {source.name} of {component!r} has the shape {list(source.shape)}; "
        f"its configuration asks for {list(expected)}.",
        f"The weights and {component}/config.json do not belong together; download the checkpoint again.",
    )


def _lay_out(component: str, model: ir.Model, by_name: Tensors, linked: Collection[str]) -> list[Binding]:
    weights = _weights(model)
    sources = {name: _source(value, by_name) for name, value in weights.items()}
    order = sorted(weights, key=lambda name: place_in_checkpoint(sources[name]))
    bindings: list[Binding] = []
    in_place: list[Binding] = []
    end = 0
    for name in order:
        value, source = weights[name], sources[name]
        assert value.shape is not None
        assert value.dtype is not None
        shape = tuple(int(size) for size in value.shape.numpy())
        transposed = TRANSPOSED in value.metadata_props
        expected = shape[::-1] if transposed else shape
        if _significant(source.shape) != _significant(expected):
            raise _other_shape(component, source, expected)
        if transposed:
            source = Transpose(of=source)
        known = as_stored(source, (value.dtype,))
        if known is not None and known.file in linked:
            in_place.append(
                Binding(
                    initializer=name,
                    source=source,
                    dtype=value.dtype,
                    shape=shape,
                    offset=known.offset,
                    linked=known.file,
                )
            )
            continue
        binding = Binding(
            initializer=name,
            source=source,
            dtype=value.dtype,
            shape=shape,
            offset=_aligned(end, _size_bytes(shape, value.dtype)),
        )
        end = binding.offset + binding.size_bytes
        bindings.append(binding)
    return bindings + in_place


def _stored_name(weight: ir.Value) -> str:
    """Return the name of the stored tensor that an initializer is made of."""
    return weight.metadata_props.get(QUANTIZED, str(weight.name)).rpartition(" ")[2]


def _source(weight: ir.Value, by_name: Tensors) -> Expression:
    """Return the values of an initializer: a stored tensor, or part of one that is quantised."""
    stored = by_name[_stored_name(weight)]
    if QUANTIZED not in weight.metadata_props:
        return stored
    part, precision, _ = weight.metadata_props[QUANTIZED].split(" ")
    return _quantized_part(stored, part, precision)


def _quantized_part(stored: Expression, part: str, precision: str) -> Expression:
    """Return a part of a quantised weight of a float16 submodel.

    Args:
        stored: The weight.
        part: ``"codes"``, ``"scales"`` or ``"zero_points"``.
        precision: ``"int4"`` or ``"int8"``.
    """
    makers: Mapping[str, Callable[..., Expression]] = {
        "codes": QuantizedCodes,
        "scales": QuantizationScales,
        "zero_points": ZeroPoints,
    }
    return makers[part](of=stored, bits=BITS[precision], scale_type="F16")


def place_in_checkpoint(source: Expression) -> tuple[str, int]:
    """Return the file and the first byte of the first stored tensor of an expression."""
    first = next(source.stored)
    return first.file, first.offset


def as_stored(source: Expression, dtypes: Collection[ir.DataType]) -> StoredTensor | None:
    """Return the stored tensor whose bytes are an expression's values, if there is one.

    Args:
        source: The expression.
        dtypes: Element types that the values may have.
    """
    while isinstance(source, Reshape):
        source = source.of
    if isinstance(source, Stored) and STORED_TYPES.get(source.dtype) in dtypes:
        return source.tensor
    return None


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

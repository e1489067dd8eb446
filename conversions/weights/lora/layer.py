"""Turn one layer of an adapter into the change of a weight.

Source of all shapes and products: KohakuBlueleaf/LyCORIS 4.1 (lycoris/functional: locon, loha, lokr) and
sd-scripts (networks/lora.py, ``LoRAModule``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.weights.expression import Expression, Reshape, Stored, Tensors, Transpose
from conversions.weights.lora.adapter_file import Layer
from conversions.weights.lora.delta import Core, Hadamard, Kronecker, Product
from conversions.weights.lora.merge import AddDelta, Decomposed


class MisfitError(Exception):
    """A layer does not fit its weight, or lacks a part; the text says how."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Parts that make a change together."""

    needed: frozenset[str]
    optional: frozenset[str] = frozenset()


_LOW_RANK = _Form(needed=frozenset({"down", "up"}), optional=frozenset({"mid"}))
_HADAMARD = _Form(
    needed=frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
    optional=frozenset({"hada_t1", "hada_t2"}),
)
_KRONECKER = _Form(
    needed=frozenset(),
    optional=frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
)
_FULL = _Form(needed=frozenset(), optional=frozenset({"diff"}))
_LENGTHS = frozenset({"dora_scale", "magnitude"})


def merged(
    layer: Layer, tensors: Mapping[str, Expression], module: str, factor: float
) -> dict[str, Expression]:
    """Return the weights of a module that a layer changes, with the change added.

    Args:
        layer: Of an adapter.
        tensors: The component's weights.
        module: The module's name there.
        factor: How much of the change is added.

    Returns:
        The changed weights by name.

    Raises:
        MisfitError: The layer's parts do not belong together, or do not fit the weight.
    """
    result: dict[str, Expression] = {}
    parts = dict(layer.parts)
    if bias := parts.pop("diff_b", None):
        name = f"{module}.bias"
        result[name] = _added(_base(tensors, name), Stored(tensor=bias), factor)
    lengths = [parts.pop(name) for name in sorted(_LENGTHS & set(parts))]
    if not parts:
        if lengths:
            raise MisfitError("it has lengths and no change")
        return result
    name = f"{module}.weight"
    base = _base(tensors, name)
    delta = _delta(parts)
    if not lengths:
        result[name] = _added(base, delta, factor * layer.scale)
        return result
    _check_size(delta, base)
    magnitude = lengths[0]
    count = math.prod(magnitude.shape)
    # LyCORIS keeps the lengths of rows as [out, 1, ...] and those of columns as [1, in, ...]; PEFT has rows.
    by_column = "dora_scale" in layer.parts and len(magnitude.shape) > 1 and magnitude.shape[0] == 1 < count
    expected = base.shape[1] if by_column and len(base.shape) > 1 else base.shape[0]
    if count != expected:
        raise MisfitError(f"its lengths are {count}, the weight wants {expected}")
    result[name] = Decomposed(
        base=base,
        delta=delta,
        magnitude=Stored(tensor=magnitude),
        scale=layer.scale,
        factor=factor,
        along="columns" if by_column else "rows",
    )
    return result


def _base(tensors: Tensors, name: str) -> Expression:
    if name not in tensors:
        raise MisfitError(f"the model has no {name}")
    return tensors[name]


def _added(base: Expression, delta: Expression, factor: float) -> Expression:
    _check_size(delta, base)
    return AddDelta(base=base, delta=delta, factor=factor)


def _check_size(delta: Expression, base: Expression) -> None:
    """Check that a change has the rows and the elements of a weight."""
    if delta.size != base.size or delta.shape[:1] != base.shape[:1]:
        raise MisfitError(f"it makes {list(delta.shape)}, the weight is {list(base.shape)}")


def _delta(parts: Mapping[str, StoredTensor]) -> Expression:
    """Return the change that some parts make together, as a matrix."""
    names = set(parts)
    if _fits(names, _LOW_RANK):
        return _low_rank(parts)
    if _fits(names, _HADAMARD):
        return _hadamard(parts)
    if _fits(names, _KRONECKER):
        return _kronecker(parts)
    if _fits(names, _FULL):
        return Stored(tensor=parts["diff"])
    wanted = sorted((_LOW_RANK.needed | _HADAMARD.needed) - names)
    known = [form for form in (_LOW_RANK, _HADAMARD) if form.needed & names]
    wanted = sorted(known[0].needed - names) if known else wanted
    raise MisfitError(f"it has {', '.join(sorted(names))} and lacks {', '.join(wanted) or 'nothing'}")


def _fits(names: Collection[str], form: _Form) -> bool:
    return form.needed <= set(names) <= form.needed | form.optional


def _low_rank(parts: Mapping[str, StoredTensor]) -> Expression:
    up, down = _matrix(parts["up"]), _matrix(parts["down"])
    return _product(up, _core(parts["mid"], down) if "mid" in parts else down)


def _hadamard(parts: Mapping[str, StoredTensor]) -> Expression:
    halves = [
        _half(parts[f"hada_w{place}_a"], parts[f"hada_w{place}_b"], parts.get(f"hada_t{place}"))
        for place in (1, 2)
    ]
    if halves[0].shape != halves[1].shape:
        raise MisfitError(f"its halves are {list(halves[0].shape)} and {list(halves[1].shape)}")
    return Hadamard(left=halves[0], right=halves[1])


def _kronecker(parts: Mapping[str, StoredTensor]) -> Expression:
    factors = []
    for place in (1, 2):
        whole, left, right = (parts.get(f"lokr_w{place}{end}") for end in ("", "_a", "_b"))
        if whole is not None and left is None and right is None:
            factors.append(_matrix(whole))
        elif whole is None and left is not None and right is not None:
            factors.append(_half(left, right, parts.get("lokr_t2") if place == 2 else None))
        else:
            raise MisfitError(f"it lacks a part of lokr_w{place}")
    return Kronecker(left=factors[0], right=factors[1])


def _half(left: StoredTensor, right: StoredTensor, core: StoredTensor | None) -> Expression:
    """Return the product of two factors; with a core between them the left one is stored transposed."""
    if core is None:
        return _product(_matrix(left), _matrix(right))
    return _product(Transpose(of=_matrix(left)), _core(core, _matrix(right)))


def _core(core: StoredTensor, right: Expression) -> Expression:
    if len(core.shape) < 2 or core.shape[1] != right.shape[0]:
        raise MisfitError(f"its core is {list(core.shape)}, its right factor {list(right.shape)}")
    return Core(core=Stored(tensor=core), right=right)


def _product(left: Expression, right: Expression) -> Expression:
    if left.shape[1] != right.shape[0]:
        raise MisfitError(f"its factors are {list(left.shape)} and {list(right.shape)}")
    return Product(left=left, right=right)


def _matrix(tensor: StoredTensor) -> Expression:
    """Return a tensor as a matrix: its first axis, and all others together."""
    if not tensor.shape or 0 in tensor.shape:
        raise MisfitError(f"its {tensor.name} has the shape {list(tensor.shape)}")
    rows = tensor.shape[0]
    return Reshape(of=Stored(tensor=tensor), to=(rows, math.prod(tensor.shape) // rows))

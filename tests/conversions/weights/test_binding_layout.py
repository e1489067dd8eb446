"""Where each weight of a graph lies in its file, and which tensor it is made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import pytest

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError
from conversions.graph_kind import Rename
from conversions.passes.quantize_weights import QUANTIZED
from conversions.passes.simplify import TRANSPOSED
from conversions.weights.binding import (
    Binding,
    Bound,
    as_stored,
    bind,
    demand_shapes,
    match_names,
    place_in_checkpoint,
)
from conversions.weights.expression import Expression, Reshape, Scale, Stored, Transpose
from conversions.weights.quantize import QuantizationScales, QuantizedCodes, ZeroPoints

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def stored(
    name: str, shape: tuple[int, ...], offset: int = 0, *, file: str = "a", dtype: str = "F32"
) -> Stored:
    tensor = StoredTensor(name=name, file=file, dtype=dtype, shape=shape, offset=offset, size_bytes=8)
    return Stored(tensor=tensor)


def value(name: str, shape: tuple[int, ...], dtype: ir.DataType = FLOAT, **notes: str) -> ir.Value:
    made = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
    made.metadata_props.update(notes)
    return made


def graph(*values: ir.Value) -> ir.Model:
    made = ir.Graph(inputs=[], outputs=[], nodes=[], initializers=list(values), name="g")
    return ir.Model(made, ir_version=10)


def kind(**changes: Any) -> Any:
    own: dict[str, Any] = {"renames": (), "unused": (), "scale_of": lambda _: 1.0}
    return SimpleNamespace(**{**own, **changes})


def bound(
    tensors: dict[str, Expression], *values: ir.Value, linked: tuple[str, ...] = (), **of_kind: Any
) -> Bound:
    submodel: Any = SimpleNamespace(name="sub", kind=kind(**of_kind))
    return bind("part", [(submodel, graph(*values))], tensors, linked)


def laid_out(*arguments: Any, **options: Any) -> list[Binding]:
    return list(bound(*arguments, **options).bindings["sub"])


def test_weights_follow_each_other_in_the_checkpoint_s_order_aligned_by_their_size() -> None:
    tensors: dict[str, Expression] = {
        "small": stored("small", (3,), 900),
        "large": stored("large", (1024,), 100),
        "less": stored("less", (1023,), 200),
        "other": stored("other", (2, 2), 0, file="b"),
        "half": stored("half", (5,), 950),
    }
    found = laid_out(
        tensors,
        value("other", (2, 2)),
        value("half", (5,), HALF),
        value("small", (3,)),
        value("less", (1023,)),
        value("large", (1024,)),
    )
    assert [(each.initializer, each.offset, each.size_bytes) for each in found] == [
        ("large", 0, 4096),
        ("less", 4096, 4092),  # a byte more, and it would begin a page
        ("small", 8192, 12),
        ("half", 8256, 10),
        ("other", 8320, 16),
    ]
    assert all(each.linked == "" for each in found)
    assert [each.dtype for each in found] == [FLOAT, FLOAT, FLOAT, HALF, FLOAT]
    assert found[-1] == Binding(
        initializer="other", source=tensors["other"], dtype=FLOAT, shape=(2, 2), offset=8320
    )
    again = laid_out(
        {"a": stored("a", (3,), 1), "b": stored("b", (1024,), 2)}, value("a", (3,)), value("b", (1024,))
    )
    assert [each.offset for each in again] == [0, 4096]


def test_a_transposed_matrix_is_made_of_the_other_order() -> None:
    tensors = {"w": stored("w", (4, 6))}
    (found,) = laid_out(tensors, value("w", (6, 4), **{TRANSPOSED: "1"}))
    assert found.source == Transpose(of=tensors["w"])
    assert found.shape == (6, 4)
    for shape, notes in (((6, 4), {}), ((4, 6), {TRANSPOSED: "1"}), ((4, 5), {})):
        with pytest.raises(ConversionError, match=r"w of 'part' has the shape \[4, 6\]") as caught:
            laid_out(tensors, value("w", shape, **notes))
        assert caught.value.code == "weights.shape"
        asked = list(shape[::-1] if notes else shape)
        assert f"asks for {asked}" in caught.value.message
        assert "part/config.json" in caught.value.hint


def test_axes_of_length_one_do_not_count() -> None:
    (found,) = laid_out({"w": stored("w", (4, 6, 1, 1))}, value("w", (4, 6)))
    assert found.shape == (4, 6)
    (found,) = laid_out({"w": stored("w", (4,))}, value("w", (1, 4, 1)))
    assert found.shape == (1, 4, 1)
    with pytest.raises(ConversionError):
        laid_out({"w": stored("w", (4, 2))}, value("w", (4, 2, 2)))


def test_what_a_linked_file_holds_as_wanted_stays_there_and_comes_last() -> None:
    tensors: dict[str, Expression] = {
        "same": stored("same", (4,), 10),
        "wider": stored("wider", (4,), 20, dtype="F16"),
        "elsewhere": stored("elsewhere", (4,), 5, file="b"),
        "reshaped": Reshape(of=stored("reshaped", (4,), 30), to=(2, 2)),
        "turned": stored("turned", (2, 3), 40),
    }
    found = laid_out(
        tensors,
        value("same", (4,)),
        value("wider", (4,)),
        value("elsewhere", (4,)),
        value("reshaped", (2, 2)),
        value("turned", (3, 2), **{TRANSPOSED: "1"}),
        linked=("a",),
    )
    assert [(each.initializer, each.offset, each.linked) for each in found] == [
        ("wider", 0, ""),
        ("turned", 64, ""),
        ("elsewhere", 128, ""),
        ("same", 10, "a"),
        ("reshaped", 30, "a"),
    ]


def test_tensors_that_nothing_uses_are_named_except_old_buffers() -> None:
    tensors: dict[str, Expression] = {
        name: stored(name, (2,), place) for place, name in enumerate(("z", "w", "a", "position_ids"))
    }
    found = bound(tensors, value("w", (2,)), unused=(r"position_ids$",))
    assert found.ignored == ("a", "z")
    assert found.notice("part").startswith("part: 2 tensors (a, z) in the checkpoint have no place")
    assert bound({"w": tensors["w"]}, value("w", (2,))).notice("part") == ""
    one = bound({"w": tensors["w"], "a": tensors["a"]}, value("w", (2,))).notice("part")
    assert one.startswith("part: 1 tensor (a) in the checkpoint has no place")


def test_what_is_missing_is_named_with_what_is_there_instead() -> None:
    def wanted(count: int) -> list[ir.Value]:
        return [value(f"w{place}", (2,)) for place in range(count)]

    with pytest.raises(ConversionError) as caught:
        bound({"other": stored("other", (2,))}, *wanted(10))
    assert caught.value.code == "weights.missing"
    names = ", ".join(f"w{place}" for place in range(8))
    assert caught.value.message == (
        f"The component 'part' lacks 10 tensors ({names} and 2 more), which its configuration requires, "
        "and holds 1 tensor (other) that it does not."
    )
    with pytest.raises(ConversionError) as caught:
        bound({}, *wanted(1))
    assert caught.value.message.endswith("lacks 1 tensor (w0), which its configuration requires.")
    with pytest.raises(ConversionError) as caught:
        bound({}, *wanted(8))
    assert "more" not in caught.value.message


def test_a_weight_that_its_kind_scales_is_scaled() -> None:
    tensors: dict[str, Expression] = {"w": stored("w", (2,)), "b": stored("b", (2,), 8)}
    found = laid_out(
        tensors, value("w", (2,)), value("b", (2,)), scale_of=lambda name: 0.5 if name == "w" else 1.0
    )
    assert [each.source for each in found] == [Scale(of=tensors["w"], factor=0.5), tensors["b"]]


def test_constants_of_a_graph_are_no_weights() -> None:
    constant = ir.Value(name="c", const_value=ir.tensor([1.0], name="c"))
    assert [each.initializer for each in laid_out({"w": stored("w", (2,))}, constant, value("w", (2,)))] == [
        "w"
    ]


def test_parts_of_a_quantised_weight_are_made_of_the_whole() -> None:
    weight = stored("w", (2, 64))
    codes, scales, points = (
        value(f"w_{part}", shape, dtype, **{QUANTIZED: f"{part} int4 w"})
        for part, shape, dtype in (
            ("codes", (2, 2, 16), ir.DataType.UINT8),
            ("scales", (2, 2), HALF),
            ("zero_points", (2, 1), ir.DataType.UINT8),
        )
    )
    found = {each.initializer: each.source for each in laid_out({"w": weight}, codes, scales, points)}
    options = {"of": weight, "bits": 4, "scale_type": "F16"}
    assert found == {
        "w_codes": QuantizedCodes(**options),
        "w_scales": QuantizationScales(**options),
        "w_zero_points": ZeroPoints(**options),
    }


RENAMES = (
    Rename(pattern=r"^old\.", replacement="new."),
    Rename(pattern=r"gamma$", replacement="weight"),
)


def test_a_name_of_its_own_counts_before_renames_and_the_first_of_these() -> None:
    tensors: dict[str, Expression] = {
        "old.w": stored("old.w", (1,)),
        "kept": stored("kept", (1,), 1),
        "x.gamma": stored("x.gamma", (1,), 2),
        "nobody's": stored("nobody's", (1,), 3),
    }
    found = match_names("part", tensors, {"new.w", "kept", "x.weight"}, RENAMES)
    assert found == {"new.w": tensors["old.w"], "kept": tensors["kept"], "x.weight": tensors["x.gamma"]}
    assert match_names("part", tensors, {"old.w", "new.w"}, RENAMES) == {"old.w": tensors["old.w"]}


def test_two_names_of_one_weight_are_refused_unless_one_is_a_copy() -> None:
    tensors: dict[str, Expression] = {"old.w": stored("old.w", (1,)), "new.w": stored("new.w", (1,), 1)}
    with pytest.raises(ConversionError, match=r"old\.w and new\.w, two names") as caught:
        match_names("part", tensors, {"new.w"}, RENAMES)
    assert caught.value.code == "weights.ambiguous"
    copies = (Rename(pattern=r"^old\.", replacement="new.", copy=True),)
    assert match_names("part", tensors, {"new.w"}, copies) == {"new.w": tensors["old.w"]}
    backwards = dict(reversed(tensors.items()))
    assert match_names("part", backwards, {"new.w"}, copies) == {"new.w": tensors["old.w"]}
    assert match_names("part", {"new.w": tensors["new.w"]}, {"new.w"}, copies) == {"new.w": tensors["new.w"]}
    assert match_names("part", {"old.w": tensors["old.w"]}, {"new.w"}, copies) == {"new.w": tensors["old.w"]}


def test_shapes_of_a_class_are_demanded_and_others_passed_over() -> None:
    tensors: dict[str, Expression] = {"old.w": stored("old.w", (4, 1)), "x": stored("x", (9,), 1)}
    demand_shapes("part", tensors, {"new.w": (4,)}, RENAMES)
    with pytest.raises(ConversionError, match=r"old\.w of 'part' has the shape \[4, 1\].*\[5\]"):
        demand_shapes("part", tensors, {"new.w": (5,)}, RENAMES)


def test_only_reshaped_tensors_of_a_package_s_type_are_as_stored() -> None:
    plain = stored("w", (4,))
    assert as_stored(plain, (FLOAT,)) == plain.tensor
    assert as_stored(Reshape(of=Reshape(of=plain, to=(2, 2)), to=(4, 1)), (HALF, FLOAT)) == plain.tensor
    assert as_stored(plain, (HALF,)) is None
    assert as_stored(plain, ()) is None
    assert as_stored(Transpose(of=stored("w", (2, 2))), (FLOAT,)) is None
    assert as_stored(stored("w", (4,), dtype="BF16"), (FLOAT, HALF)) is None
    assert as_stored(stored("w", (4,), dtype="F16"), (HALF,)) is not None


def test_an_expression_lies_where_its_first_tensor_lies() -> None:
    assert place_in_checkpoint(Transpose(of=stored("w", (2, 2), 17, file="x"))) == ("x", 17)

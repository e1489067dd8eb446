"""Rows that a package's table of tokens gets, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from conversions.package.layout import Package
from conversions.providers.devices import CPU
from sdsetup.errors import SetupError
from sdsetup.runtime import sessions
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.textual_inversion import AddedRows, PackageEmbeddings, resize
from tests.sdsetup import toy_package

VECTORS = np.arange(24, dtype=np.float32).reshape(3, 8)


@pytest.fixture(params=["fp32", "fp16"])
def package(tmp_path: Path, request: pytest.FixtureRequest) -> Package:
    return open_for_images(toy_package.write(tmp_path / "package", precision=request.param))


def table(package: Package) -> np.ndarray[Any, Any]:
    model = onnx.load(package.graph("text_encoder"))
    return next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == "table")


def added(first: int, name: str = "able") -> PackageEmbeddings:
    return PackageEmbeddings(rows={"text_encoder": AddedRows(table=name, first=first, vectors=VECTORS)})


@pytest.mark.parametrize(
    "place", [lambda size: size, lambda size: size + 5, lambda size: size - 1, lambda _: 2]
)
def test_rows_are_put_where_the_tokens_ids_point(package: Package, place: Callable[[int], int]) -> None:
    """A table may have rows to spare behind the last token, or be too short by some."""
    before = table(package)
    first = place(len(before))
    ((name, after),) = added(first).extended_weights(package, "text_encoder").items()
    size = max(len(before), first + 3)
    assert (name, after.shape, after.dtype) == ("table", (size, 8), before.dtype)
    np.testing.assert_array_equal(after[first : first + 3], VECTORS)
    kept = [row for row in range(len(before)) if not first <= row < first + 3]
    np.testing.assert_array_equal(after[kept], before[kept])
    assert not after[len(before) : first].any()
    assert added(first).extended_weights(package, "unet") == {}


def test_a_session_looks_up_the_new_rows(package: Package) -> None:
    first = len(table(package))
    weights = added(first).extended_weights(package, "text_encoder")
    shapes = {"unheard-of": (1,), "one": (1,), **{name: array.shape for name, array in weights.items()}}
    loaded = sessions.load(
        package.graph("text_encoder"), CPU, {}, edits=[partial(resize, shapes=shapes)], weights=weights
    )
    ids = np.array([[0, first + 2, first]], np.int32)
    outputs, _ = sessions.run(loaded, {"input_ids": ids}, "running text_encoder")
    wanted = [table(package)[0], VECTORS[2], VECTORS[0]]
    np.testing.assert_array_equal(outputs["last_hidden_state"][0], np.stack(wanted))


def test_a_resized_weight_says_how_many_bytes_it_has(package: Package) -> None:
    model = ir.load(package.graph("text_encoder"))
    resize(model, shapes={"table": (5, 8)})
    value = model.graph.initializers["table"]
    assert isinstance(value.const_value, ir.ExternalTensor)
    assert value.shape == value.const_value.shape == ir.Shape((5, 8))
    assert value.const_value.length == 5 * 8 * table(package).itemsize
    assert Path(value.const_value.base_dir) == package.folder / "text_encoder"


def test_a_graph_without_a_table_is_refused(package: Package) -> None:
    with pytest.raises(SetupError, match=r"text_encoder of .* has no table of tokens") as caught:
        added(3, "nothing.weight").extended_weights(package, "text_encoder")
    assert caught.value.code == "embedding.table"


def test_numbers_stay_out_of_what_is_printed() -> None:
    rows = AddedRows(table="a", first=3, vectors=VECTORS)
    assert repr(rows) == "AddedRows(table='a', first=3)"
    assert "vectors" not in repr(PackageEmbeddings(rows={"b": rows}))

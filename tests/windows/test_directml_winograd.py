"""Convolutions by Winograd on DirectML: one fused graph, and the numbers of the convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from conversions.providers.winograd_check import Trial, wins
from conversions.verification.metrics import compare
from tests.windows import on_directml

pytestmark = pytest.mark.directml

SMALL = Trial(channels=256, side=16, convolutions=2)


class Session:
    """A session that is wholly on DirectML, and what it gave and ran."""

    def __init__(self, model: bytes, folder: Path) -> None:
        self.convolves = b"Conv" in model
        self.session = on_directml.open_session(model, folder)
        self.outputs: list[np.ndarray[Any, Any]] = []

    def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
        outputs: list[Any] = self.session.run(names, feeds)
        self.outputs += outputs
        return outputs


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.FLOAT])
def test_both_forms_are_one_fused_graph_and_agree(tmp_path: Path, dtype: ir.DataType) -> None:
    opened: list[Session] = []

    def open_model(model: bytes) -> Session:
        opened.append(Session(model, tmp_path))
        return opened[-1]

    wins(dtype, open_model, SMALL)
    plain, changed = opened
    assert plain.convolves and not changed.convolves
    assert plain.outputs[0].shape == (2, 256, 8, 8)
    least_db = 50 if dtype == ir.DataType.FLOAT16 else 90
    assert compare(changed.outputs[0], plain.outputs[0]).psnr_db >= least_db
    feeds = {"x": np.ones((2, 256, 8, 8), dtype.numpy())}
    for each in opened:
        _, kernels = on_directml.run_and_name_kernels(each.session, feeds)
        assert len(set(kernels)) == 1
        assert kernels[0].startswith("DmlFusedNode")

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conversions.checkpoint.folder import open_folder
from conversions.verification import layerwise
from conversions.verification.reference import ExpressionWeights, FolderWeights, make_inputs, run_reference
from conversions.verification.references import weights_of
from tests.checkpoints import VARIANTS, make_variant

pytestmark = pytest.mark.torch


def narrow(checkpoint: Path, folder: Path, dtype: str) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    for path in shutil.copytree(checkpoint, folder).rglob("*.safetensors"):
        stored = {name: each.to(getattr(torch, dtype)) for name, each in load_file(path).items()}
        save_file(stored, path)
    return folder


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("variant", "small_bytes"),
    [
        ("", 0),
        ("stable-diffusion-3", 0),
        # The embedding of its timesteps is the smallest part that looks deeper than one level.
        ("z-image turbo", 2 << 20),
        *(
            pytest.param(each, 0, marks=pytest.mark.robustness)
            for each in ("flux schnell", "flux2-klein", "pixart sigma", "pixart alpha", "sana", "sana-sprint")
        ),
    ],
)
def test_weights_kept_as_they_are_stored_give_float32_s_numbers(
    dtype: str,
    variant: str,
    small_bytes: int,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layerwise, "_SMALL_BYTES", small_bytes)
    whole = make_variant(tmp_path / "whole", VARIANTS[variant]) if variant else tiny_checkpoint
    opened = open_folder(narrow(whole, tmp_path / "narrow", dtype))
    for submodel in (each for each in opened.submodels if each.kind.quantizable):
        config, kind = opened.config_of(submodel), submodel.kind
        component = opened.components[submodel.component]
        inputs = make_inputs(kind, config, kind.sizes)
        monkeypatch.setattr(layerwise, "_LARGE_BYTES", 6 << 30)
        small = weights_of(opened, component)
        monkeypatch.setattr(layerwise, "_LARGE_BYTES", 0)
        large = weights_of(opened, component)
        assert isinstance(small, FolderWeights)
        assert isinstance(large, ExpressionWeights)
        assert large.dtype == dtype
        expected = run_reference(kind, config, small, inputs)
        found = run_reference(kind, config, large, inputs)
        for name, numbers in expected.outputs.items():
            np.testing.assert_allclose(found.outputs[name], numbers, rtol=1e-5, atol=1e-5)


def test_a_layer_s_own_weights_are_back_after_it_ran() -> None:
    import torch

    from conversions.verification.layerwise import in_float32

    model = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 3)).half()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    with torch.no_grad(), in_float32(model, {"0.weight": "int4"}):
        rounded = model(torch.ones(2, 64))
    with torch.no_grad(), in_float32(model, {}):
        plain = model(torch.ones(2, 64))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, plain)
    for name, each in model.state_dict().items():
        assert each.dtype == torch.float16
        assert torch.equal(each, before[name])


class Looking:
    """Make a block that looks at the type of its layer before it calls it, as T5's does."""

    def __new__(cls, width: int) -> Any:
        import torch

        class Block(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = torch.nn.Linear(width, width)

            def forward(self, x: Any) -> Any:
                return self.inner(x.to(self.inner.weight.dtype)).float()

        return Block()


def test_blocks_of_plain_layers_are_float32_as_a_whole_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(layerwise, "_SMALL_BYTES", 0)
    torch.manual_seed(0)
    model = torch.nn.Sequential(Looking(4), torch.nn.Sequential(torch.nn.Sequential(Looking(4))))
    model = model.half()
    x = torch.randn(3, 4) / 3
    with torch.no_grad():
        with layerwise.in_float32(model, {}):
            found = model(x)
        assert {each.dtype for each in model.parameters()} == {torch.float16}
        narrow = model(x)
        expected = model.float()(x)
    assert torch.equal(found, expected)
    assert not torch.equal(narrow, expected)


def test_small_parts_are_float32_as_a_whole_and_large_ones_layer_by_layer() -> None:
    import torch

    seen: list[set[torch.dtype]] = []

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.middle = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(4, 4)))

        def forward(self, x: Any) -> Any:
            seen.append({each.dtype for each in self.parameters()})
            return self.middle(x)

    model, x = Outer().half(), torch.ones(1, 4)
    most = 4 * sum(each.numel() for each in model.parameters())
    for bound in (layerwise._SMALL_BYTES, most, most - 1):
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(layerwise, "_SMALL_BYTES", bound)
            with layerwise.in_float32(model, {}):
                assert model(x).dtype == torch.float32
    assert seen == [{torch.float32}, {torch.float32}, {torch.float16}]


def test_a_weight_that_two_layers_share_is_widened_once_and_narrow_again() -> None:
    import torch

    one, other = (torch.nn.Linear(32, 32, bias=False) for _ in range(2))
    other.weight = one.weight
    model = torch.nn.Sequential(one, other).half()
    before = one.weight.detach().clone()
    with torch.no_grad(), layerwise.in_float32(model, {"0.weight": "int8"}):
        for _ in range(2):
            model(torch.ones(1, 32))
            assert one.weight is other.weight
            assert torch.equal(one.weight, before)


def test_nothing_is_left_on_a_model_whatever_ends_the_block() -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(4, 4)).half()
    with pytest.raises(KeyError), layerwise.in_float32(model, {}):
        raise KeyError
    with pytest.raises(RuntimeError):
        model(torch.ones(1, 4))


def test_quantised_weights_are_those_that_the_package_stands_for() -> None:
    import torch

    from conversions.weights.quantize import BITS, quantize

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Conv2d(1, 1, 1))
    for precision in ("int4", "int8"):
        restored = quantize(model[0].weight.detach().numpy(), BITS[precision], np.float16).restored()
        with torch.no_grad(), layerwise.in_float32(model, {"0.weight": precision, "1.weight": ""}):
            found = model[0](torch.eye(64))
        expected = torch.from_numpy(restored).T + model[0].bias
        torch.testing.assert_close(found, expected.reshape(64, 8))


@pytest.mark.parametrize(
    ("dtypes", "more", "kept"),
    [
        (["F16"], 0, "float32"),
        (["F16"], 1, "float16"),
        (["BF16"], 1, "bfloat16"),
        (["F16", "BF16"], 1, "float32"),
        (["F32"], 1, "float32"),
    ],
)
def test_many_weights_are_kept_in_the_one_type_that_they_are_stored_in(
    dtypes: list[str], more: int, kept: str
) -> None:
    gib = 1 << 30
    sizes = [6 * gib // 4 - len(dtypes) + 1 + more] + [1] * (len(dtypes) - 1)
    tensors: Any = {
        dtype: SimpleNamespace(size=size, dtype=dtype) for dtype, size in zip(dtypes, sizes, strict=True)
    }
    assert layerwise.kept_type(tensors) == kept


def test_weights_without_meaning_have_a_type_and_take_no_time() -> None:
    import torch
    from torch.nn import init

    table = torch.full((3,), 7.0)
    with layerwise.uninitialised(torch.bfloat16):
        assert torch.nn.Linear(2, 2).weight.dtype == torch.bfloat16
        for name in ("uniform_", "normal_", "xavier_uniform_", "kaiming_normal_", "trunc_normal_"):
            assert getattr(init, name)(table, 0.0) is table
        init.kaiming_uniform_(table, a=1)
        assert table.tolist() == [7, 7, 7]
    assert torch.nn.Linear(2, 2).weight.dtype == torch.float32
    assert init.normal_(table).tolist() != [7, 7, 7]
    with pytest.raises(KeyError), layerwise.uninitialised(torch.float16):
        raise KeyError
    assert torch.get_default_dtype() == torch.float32
    assert init.uniform_(torch.full((3,), 7.0)).max() <= 1

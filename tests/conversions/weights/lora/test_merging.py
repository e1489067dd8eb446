"""Adapters merged into a checkpoint's weights, against the published formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest

from conversions.checkpoint.folder import component_tensors, open_folder
from conversions.weights.expression import evaluate_range
from conversions.weights.lora.request import AdapterRequest
from conversions.weights.lora.with_adapters import with_adapters
from conversions.weights.read_numbers import read_numbers
from tests import adapters
from tests.checkpoints import VARIANTS, make_variant

pytestmark = pytest.mark.torch
NAMES = ("stable-diffusion", "stable-diffusion-xl")


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request, tmp_path_factory):
    return make_variant(tmp_path_factory.mktemp("checkpoints") / request.param, VARIANTS[request.param])


def evaluated(checkpoint, requests, **options):
    """Return all weights of the components that adapters change, evaluated in strange pieces."""
    opened = with_adapters(open_folder(checkpoint), requests, **options).checkpoint
    storage = opened.storage
    read = read_numbers({name: storage.path_of(name) for name in storage.names()})
    found = {}
    for adapted in opened.family.adapted:
        for name, expression in component_tensors(storage, opened.components[adapted.component]).items():
            pieces = [
                evaluate_range(expression, first, min(1237, expression.size - first), read)
                for first in range(0, expression.size, 1237)
            ]
            found[adapted.component, name] = np.concatenate(pieces).reshape(expression.shape)
    return found


def expected(checkpoint, layers, factors):
    weights = {}
    for module in adapters.modules(checkpoint, adapters.CONVOLUTIONS):
        weight = module.weight
        for adapter, factor in zip(layers, factors, strict=True):
            if (module.component, module.name) in adapter.layers:
                parts, alpha = adapter.layers[module.component, module.name]
                weight = adapters.changed(weight, parts, alpha, factor)
        weights[module.component, f"{module.name}.weight"] = weight
    return weights


def assert_same(found, wanted, bound=1e-5):
    for name, weight in wanted.items():
        scale = np.abs(weight).max()
        assert np.abs(found[name] - weight).max() <= bound * scale, name


@pytest.mark.parametrize("naming", ["kohya", "original"])
@pytest.mark.parametrize("algorithm", adapters.ALGORITHMS)
def test_every_algorithm_gives_its_formula(checkpoint, tmp_path, algorithm, naming):
    adapter = adapters.make(checkpoint, algorithm)
    file = adapters.write(adapter, tmp_path / "a.safetensors", naming)
    found = evaluated(checkpoint, [AdapterRequest(path=file, weight=0.7)])
    plain = evaluated(checkpoint, [])
    wanted = expected(checkpoint, [adapter], [0.7])
    assert_same(found, wanted)
    moved = [name for name in wanted if np.abs(found[name] - plain[name]).max() > 0.1 * plain[name].std()]
    assert len(moved) == len(adapter.layers) > 20
    assert all(np.array_equal(found[name], plain[name]) for name in set(plain) - set(wanted))


@pytest.mark.parametrize(
    ("naming", "algorithm"), [("peft", "lora"), ("peft", "peft dora"), ("old diffusers", "lora")]
)
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_diffusers_names(checkpoint, tmp_path, naming, algorithm, alpha):
    alpha = alpha if naming == "peft" else None
    adapter = adapters.make(checkpoint, algorithm, alpha=alpha)
    file = adapters.write(adapter, tmp_path / "a.safetensors", naming)
    found = evaluated(checkpoint, [AdapterRequest(path=file)])
    assert_same(found, expected(checkpoint, [adapter], [1.0]))


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_adapters(checkpoint, tmp_path, dtype, bound):
    adapter = adapters.make(checkpoint, "lora")
    file = adapters.write(adapter, tmp_path / "a.safetensors", dtype=dtype)
    assert_same(
        evaluated(checkpoint, [AdapterRequest(path=file)]), expected(checkpoint, [adapter], [1.0]), bound
    )


def test_several_add_up_in_order(checkpoint, tmp_path):
    made = [adapters.make(checkpoint, kind, seed=seed) for seed, kind in enumerate(("lora", "dora", "loha"))]
    files = [adapters.write(each, tmp_path / f"{place}.safetensors") for place, each in enumerate(made)]
    weights = [0.5, 0.8, -0.3]
    requests = [AdapterRequest(path=file, weight=weight) for file, weight in zip(files, weights, strict=True)]
    assert_same(evaluated(checkpoint, requests), expected(checkpoint, made, weights), 3e-5)


def test_a_weight_of_zero_changes_nothing(checkpoint, tmp_path):
    file = adapters.write(adapters.make(checkpoint, "dora"), tmp_path / "a.safetensors")
    plain, found = evaluated(checkpoint, []), evaluated(checkpoint, [AdapterRequest(path=file, weight=0.0)])
    assert all(np.array_equal(found[name], plain[name]) for name in plain)

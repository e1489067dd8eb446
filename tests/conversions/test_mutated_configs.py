"""Faults at random in configurations, through convert; ``tests.benchmarks.mutated_configs`` makes more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conversions.checkpoint.folder import open_folder
from conversions.conversion import convert
from conversions.errors import ConversionError
from conversions.events import Finished, Started, ignore
from conversions.graphs.obtain import obtain
from conversions.options import Options
from conversions.plan import make_plan
from tests.conversions.mutations import mutate

pytestmark = pytest.mark.torch


def test_a_fault_in_a_configuration_gives_a_package_or_one_clear_message(
    tiny_checkpoint: Path, graph_cache: Path, tmp_path: Path
) -> None:
    codes = []
    for seed in range(8):
        source = Path(shutil.copytree(tiny_checkpoint, tmp_path / f"source-{seed}"))
        change = mutate(source, seed)
        output = tmp_path / f"package-{seed}"
        try:
            opened = open_folder(source)
            plan = make_plan(opened, Options(target="cpu"), graph_cache)
            convert(
                plan,
                opened,
                output,
                tool_version="test",
                graph_cache=graph_cache,
                checks=None,
                listener=ignore,
            )
            codes.append("converted")
        except ConversionError as error:
            assert error.message, change
            assert error.hint, change
            assert error.code.partition(".")[0] in ("config", "checkpoint", "weights", "family"), change
            assert not output.exists()
            codes.append(error.code)
    assert "config.invalid" in codes
    assert "converted" in codes


@pytest.mark.robustness  # traces
def test_what_torch_says_of_a_configuration_is_one_line_that_names_the_class(
    tiny_checkpoint: Path, graph_cache: Path, tmp_path: Path
) -> None:
    """Values that are fine one by one, and impossible together."""
    import json

    source = Path(shutil.copytree(tiny_checkpoint, tmp_path / "source"))
    path = source / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "norm_num_groups": 7}), "utf-8")
    opened = open_folder(source)
    plan = make_plan(opened, Options(target="cpu"), graph_cache)
    with pytest.raises(ConversionError) as caught:
        convert(
            plan,
            opened,
            tmp_path / "package",
            tool_version="test",
            graph_cache=graph_cache,
            checks=None,
            listener=ignore,
        )
    assert caught.value.code == "config.untraceable"
    assert "UNet2DConditionModel" in caught.value.message
    assert "num_channels" in caught.value.message
    assert "\n" not in caught.value.message
    assert "config.json" in caught.value.hint


def test_a_configuration_of_a_much_larger_model_is_refused_before_it_is_traced(
    tiny_checkpoint: Path, graph_cache: Path, tmp_path: Path
) -> None:
    """An empty ``vision_config`` is one of the class's default sizes, much larger than the weights."""
    import json

    source = Path(shutil.copytree(tiny_checkpoint, tmp_path / "source"))
    path = source / "safety_checker" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "vision_config": {}}), "utf-8")
    opened = open_folder(source)
    events: list[object] = []
    with pytest.raises(ConversionError) as caught:
        obtain(opened.submodels, opened, graph_cache, False, events.append)
    assert caught.value.code == "weights.shape"
    assert "'safety_checker'" in caught.value.message
    assert [event for event in events if isinstance(event, Started)]
    assert not [event for event in events if isinstance(event, Finished)]

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversions.checkpoint.folder import open_folder
from sdsetup.errors import SetupError
from sdsetup.imaging.checkpoint_scheduler import check_scheduler
from tests.checkpoints import VARIANTS, make_variant

DDIM = {"_class_name": "DDIMScheduler"}
FLOW_EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
STRANGE = {"_class_name": "FooFlowScheduler"}

pytestmark = pytest.mark.torch


def check(name: str, own: dict[str, Any] | None, wanted: str, folder: Path) -> None:
    variant = VARIANTS[name] if own is None else replace(VARIANTS[name], scheduler=own)
    check_scheduler("it", open_folder(make_variant(folder / "tiny", variant)), wanted)


@pytest.mark.parametrize(
    ("name", "own", "wanted"),
    [
        ("z-image", None, ""),
        ("z-image", None, "FlowMatchHeunDiscreteScheduler"),
        ("z-image", STRANGE, "FlowMatchEulerDiscreteScheduler"),
        ("sana", None, "UniPCMultistepScheduler"),
        ("sana", None, "FlowMatchEulerDiscreteScheduler"),
        ("stable-diffusion", None, "DDIMScheduler"),
    ],
)
def test_what_can_step_a_model_is_taken(
    name: str, own: dict[str, Any] | None, wanted: str, tmp_path: Path
) -> None:
    check(name, own, wanted, tmp_path)


@pytest.mark.parametrize(
    ("name", "own", "wanted", "hint"),
    [
        ("z-image", None, "DDIMScheduler", "flow_match_euler"),
        ("z-image", None, "UniPCMultistepScheduler", "flow_match_euler"),
        ("z-image", DDIM, "", "--scheduler flow_match_euler"),
        ("z-image", STRANGE, "EulerDiscreteScheduler", "--scheduler flow_match_euler"),
        ("z-image", None, "SCMScheduler", "leave --scheduler out"),
        ("z-image", STRANGE, "", "flow_match_euler, flow_match_heun."),
        ("sana", None, "DDIMScheduler", "--scheduler"),
        ("stable-diffusion", FLOW_EULER, "", "--scheduler euler"),
        ("stable-diffusion", None, "FlowMatchEulerDiscreteScheduler", "leave --scheduler out"),
        ("stable-diffusion", STRANGE, "SCMScheduler", "leave --scheduler out"),
        (
            "stable-diffusion",
            {"_class_name": "SCMScheduler"},
            "",
            "download the folder scheduler of the model",
        ),
    ],
)
def test_a_scheduler_of_another_kind_of_model_is_refused_with_what_to_take(
    name: str, own: dict[str, Any] | None, wanted: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(SetupError) as caught:
        check(name, own, wanted, tmp_path)
    assert caught.value.code.startswith("scheduler.")
    assert hint in (caught.value.hint or "")


def test_a_checkpoint_without_its_scheduler_is_refused(tmp_path: Path) -> None:
    folder = make_variant(tmp_path / "tiny", VARIANTS["stable-diffusion"])
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(SetupError, match="it has no scheduler/") as caught:
        check_scheduler("it", open_folder(folder), "")
    assert caught.value.code == "scheduler.missing"

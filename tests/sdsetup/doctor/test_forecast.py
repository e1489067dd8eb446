from pathlib import Path

import pytest

from sdsetup.doctor.forecast import purpose_for
from sdsetup.doctor.purpose import purpose
from sdsetup.errors import UsageError


def test_without_a_model_the_kind_s_own_needs_hold() -> None:
    assert purpose_for("convert", "") == purpose("convert")


def test_a_repository_cannot_be_planned_without_asking_the_hub_so_its_kind_s_needs_hold() -> None:
    assert purpose_for("convert", "owner/name").output_bytes == purpose("convert").output_bytes


@pytest.mark.parametrize("model", ["./nowhere", "nowhere", "/no/such/folder"])
def test_a_folder_that_is_not_there_is_wrong_usage(model: str) -> None:
    with pytest.raises(UsageError, match="no folder"):
        purpose_for("convert", model)


def test_pictures_need_memory_for_the_package_s_own_weights(tmp_path: Path) -> None:
    for name, megabytes in (("unet", 1700), ("vae_decoder", 100)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "model.onnx_data").open("wb") as file:
            file.truncate(megabytes * 10**6)
    found = purpose_for("generate", str(tmp_path))
    assert found.vram_bytes == 1_800_000_000 + 2 * 1024**3
    assert tmp_path.name in found.basis


def test_a_folder_that_is_no_checkpoint_is_left_to_convert_to_explain(tmp_path: Path) -> None:
    assert purpose_for("convert", str(tmp_path)).output_bytes == purpose("convert").output_bytes

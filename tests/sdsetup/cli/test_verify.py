"""``sdsetup verify`` as a person runs it, on the CPU of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdsetup.cli.app import main

pytestmark = pytest.mark.torch  # the package is made here


def test_it_says_which_device_ran_and_what_share(
    tiny_package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tiny_package), "--adapter", "cpu"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "CPU (CPU 0) ran 100.0% of" in said
    assert "nodes, 100.0% of the time." in said
    assert "is whole and right on CPU (CPU 0)." in said
    assert "submodel size" in said  # nothing was compared, so there is no column of numbers
    assert "PSNR" not in said


def test_its_memory_is_that_of_the_image_that_was_asked_for(
    tiny_package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = []
    for side in ("64", "256"):
        size = ["--width", side, "--height", side]
        assert main(["verify", str(tiny_package), "--provider", "cpu", *size]) == 0
        said = capsys.readouterr().err
        assert f"VRAM is a forecast for one image of {side}x{side}." in " ".join(said.split())
        (row,) = (line.split() for line in said.splitlines() if line.split()[:1] == ["unet"])
        needs.append(float(row[3]))
    assert needs[0] < needs[1]


def test_the_document_tells_device_and_shares(tiny_package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tiny_package), "--provider", "cpu", "--device-id", "0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["device"] == "CPU (CPU 0)"
    assert document["time_share"] == 1.0
    for submodel in document["submodels"]:
        assert submodel["placement"]["node_share"] == 1.0
        assert submodel["placement"]["elsewhere"] == {}


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        (["--provider", "cuda"], 1, "CUDA cannot be used here"),
        (["--provider", "webgpu"], 1, "WebGPU cannot be used here"),
        (["--adapter", "GeForce"], 2, "no device has the name 'GeForce'"),
        (["--device-id", "7"], 2, "no device has the number 7"),
        (["--provider", "warp"], 2, "no provider 'warp'"),
    ],
    ids=str,
)
def test_a_device_that_is_not_here_is_an_error_and_never_another_one(
    tiny_package: Path,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
    status: int,
    message: str,
) -> None:
    if asked[-1] in ("cuda", "webgpu"):
        from conversions.providers.devices import list_devices

        if any(device.provider.target == asked[-1] for device in list_devices()):
            pytest.skip(f"{asked[-1]} can be used here")
    assert main(["verify", str(tiny_package), *asked]) == status
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert "next:" in said

import ctypes
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sdsetup.bootstrap import known_good

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def _requirements() -> list[Requirement]:
    import tomllib

    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    listed = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        listed += extra
    for group in project["dependency-groups"].values():
        listed += group
    return [Requirement(line) for line in listed]


@pytest.mark.parametrize("platform", ["win32", "linux", "darwin"])
def test_every_requirement_of_the_project_is_pinned_within_its_range(platform: str) -> None:
    pins = known_good.versions(platform)
    for requirement in _requirements():
        environment = {"sys_platform": platform, "extra": ""}
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        name = known_good.normalized(requirement.name)
        if name in {"onnxruntime-gpu", "onnxruntime-openvino"} and platform == "darwin":
            continue
        assert requirement.specifier.contains(pins[name]), f"{requirement} against {pins[name]}"


def test_each_pin_reads_the_same_with_the_reference_parser() -> None:
    for platform in ("win32", "linux", "darwin"):
        expected: dict[str, str] = {}
        for line in known_good.CONSTRAINTS.read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                continue
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"sys_platform": platform}):
                expected[known_good.normalized(requirement.name)] = str(requirement.specifier)[2:]
        assert known_good.versions(platform) == expected


def test_a_line_that_pins_nothing_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = tmp_path / "constraints.txt"
    loose.write_text("numpy==2.4.6\nonnx>=1.18\n", encoding="utf-8")
    monkeypatch.setattr(known_good, "CONSTRAINTS", loose)
    with pytest.raises(ValueError, match=r"onnx>=1\.18"):
        known_good.versions()


def test_these_tests_run_on_the_known_good_set() -> None:
    pins = known_good.versions()
    installed = {
        known_good.normalized(found.name): found.version.partition("+")[0]
        for found in metadata.distributions()
    }
    different = {
        name: (version, pins[name])
        for name, version in installed.items()
        if name in pins and pins[name] != version
    }
    if sys.platform == "win32" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version"):
        different.pop("numpy")  # Wine lacks a function that numpy needs since 2.2: tests/windows/wheels.txt
    assert not different, f"installed, pinned: {different} on {sys.platform}"

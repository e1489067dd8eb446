import json
import subprocess

import pytest

from sdsetup.machine.adapters import Adapter, macos

APPLE = {
    "SPDisplaysDataType": [
        {
            "_name": "Apple M2 Pro",
            "sppci_model": "Apple M2 Pro",
            "spdisplays_vendor": "sppci_vendor_Apple",
            "spdisplays_mtlgpufamilysupport": "spdisplays_metal3",
            "sppci_cores": "19",
        }
    ]
}
INTEL_AND_AMD = {
    "SPDisplaysDataType": [
        {
            "_name": "Intel UHD Graphics 630",
            "sppci_model": "Intel UHD Graphics 630",
            "spdisplays_vendor": "Intel",
            "spdisplays_vram_shared": "1536 MB",
            "spdisplays_device-id": "0x3e9b",
            "_spdisplays_vram": "1536 MB",
        },
        {
            "_name": "AMD Radeon Pro 5500M",
            "sppci_model": "AMD Radeon Pro 5500M",
            "spdisplays_vendor": "sppci_vendor_amd (0x1002)",
            "spdisplays_vram": "8 GB",
            "spdisplays_device-id": "0x7340",
        },
    ]
}


def test_apple_s_graphics_share_the_machine_s_memory() -> None:
    (only,) = macos.parse(json.dumps(APPLE).encode())
    assert (only.name, only.vendor, only.integrated) == ("Apple M2 Pro", "Apple", True)


def test_an_amd_card_beside_intel_s_graphics() -> None:
    first, second = macos.parse(json.dumps(INTEL_AND_AMD).encode())
    assert (first.vendor, first.integrated) == ("Intel", True)
    assert (second.vendor, second.device_id, second.vram_bytes) == ("AMD", 0x7340, 8 * 1024**3)
    assert second.integrated is False


def described(**display: str) -> Adapter:
    (only,) = macos.parse(json.dumps({"SPDisplaysDataType": [display]}).encode())
    return only


def test_little_is_understood_too() -> None:
    assert described() == Adapter(index=0, name="unknown", integrated=False)
    assert described(_name="a").name == "a"
    assert described(_name="a", sppci_model="b").name == "b"
    (whole,) = macos.parse(json.dumps(APPLE).encode())
    assert (whole.driver, whole.vendor_id, whole.vram_bytes) == ("Metal", 0x106B, None)
    assert described(spdisplays_metal="spdisplays_supported").driver == "Metal"


@pytest.mark.parametrize(
    ("vendor", "number"),
    [
        ("AMD", 0x1002),
        ("Intel", 0x8086),
        ("sppci_vendor_Apple", 0x106B),
        ("sppci_vendor_amd (0x10DE)", 0x10DE),
        ("Apple (0x8086)", 0x8086),
        ("other", 0),
    ],
)
def test_vendors_are_known_by_number_or_name(vendor: str, number: int) -> None:
    assert described(spdisplays_vendor=vendor).vendor_id == number


@pytest.mark.parametrize(
    ("fields", "size", "integrated"),
    [
        ({"spdisplays_vram": "1536 MB"}, 1536 * 1024**2, False),
        ({"_spdisplays_vram": "8 GB"}, 8 * 1024**3, False),
        ({"spdisplays_vram": "2 GB", "_spdisplays_vram": "8 GB"}, 2 * 1024**3, False),
        ({"spdisplays_vram_shared": "1 GB"}, None, True),
        ({"spdisplays_vram": "many"}, None, False),
    ],
)
def test_memory_is_read_with_its_unit(fields: dict[str, str], size: int | None, integrated: bool) -> None:
    found = described(**fields)
    assert (found.vram_bytes, found.integrated) == (size, integrated)


@pytest.mark.parametrize(("said", "number"), [("0x7340", 0x7340), ("0x734", 0), ("x0x7340", 0), ("7340", 0)])
def test_a_device_has_four_digits(said: str, number: int) -> None:
    assert described(**{"spdisplays_device-id": said}).device_id == number


def test_the_program_is_asked_for_json(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        asked.append((command, options["check"], options["capture_output"]))
        return subprocess.CompletedProcess(command, 0, json.dumps(APPLE).encode())

    monkeypatch.setattr(macos.subprocess, "run", run)
    assert [adapter.name for adapter in macos.read()] == ["Apple M2 Pro"]
    assert asked == [(["/usr/sbin/system_profiler", "SPDisplaysDataType", "-json"], True, True)]

    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(macos.subprocess, "run", fail)
    with pytest.raises(OSError, match="system_profiler failed"):
        macos.read()


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"SPDisplaysDataType": [1]}', b"\xff"])
def test_an_answer_that_is_not_understood_is_an_os_error(answer: bytes) -> None:
    with pytest.raises(OSError, match="not understood"):
        macos.parse(answer)

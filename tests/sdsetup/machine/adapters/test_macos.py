import json

import pytest

from sdsetup.machine.adapters import macos

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


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"SPDisplaysDataType": [1]}', b"\xff"])
def test_an_answer_that_is_not_understood_is_an_os_error(answer: bytes) -> None:
    with pytest.raises(OSError, match="not understood"):
        macos.parse(answer)

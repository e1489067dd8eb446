import sys
from types import SimpleNamespace

import pytest

from conversions.providers import devices
from conversions.providers.cuda_devices import CudaDevice
from conversions.providers.table import provider_for
from sdsetup.errors import SetupError, UsageError
from sdsetup.machine import adapters
from sdsetup.machine.adapters import linux
from sdsetup.runtime.devices import Device, choose_device, list_devices

DML, CPU = provider_for("directml"), provider_for("cpu")
INTEGRATED = Device(
    provider=DML, name="AMD Radeon Graphics", number=0, discrete=False, memory_bytes=512 * 2**20, rank=1
)
DISCRETE = Device(
    provider=DML, name="AMD Radeon RX 6700 XT", number=1, discrete=True, memory_bytes=12 * 2**30, rank=0
)
OTHER = Device(
    provider=DML, name="AMD Radeon RX 580", number=2, discrete=True, memory_bytes=4 * 2**30, rank=2
)
HOST = Device(provider=CPU, name="CPU")
ALL = (INTEGRATED, DISCRETE, OTHER, HOST)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, DISCRETE),
        ({"number": 0}, INTEGRATED),
        ({"number": 2}, OTHER),
        ({"name": "RX 6700"}, DISCRETE),
        ({"name": "rx 580"}, OTHER),
        ({"target": "directml"}, DISCRETE),
        ({"target": "DmlExecutionProvider", "number": 0}, INTEGRATED),
        ({"target": "cpu"}, HOST),
    ],
    ids=str,
)
def test_the_wanted_device_is_chosen(asked, expected):
    assert choose_device(ALL, **asked) == expected


def test_an_integrated_gpu_is_taken_before_the_cpu():
    assert choose_device((INTEGRATED, HOST)) == INTEGRATED


def test_a_device_of_unknown_kind_is_not_put_behind_an_integrated_one():
    unknown = Device(provider=DML, name="GPU", number=5)
    assert choose_device((INTEGRATED, unknown)) == unknown


WARP = Device(provider=DML, name="Microsoft Basic Render Driver", number=3, software=True, rank=0)


def test_a_software_adapter_is_passed_over_for_the_cpu():
    assert choose_device((WARP, HOST)) == HOST
    assert choose_device((WARP, INTEGRATED, HOST)) == INTEGRATED


@pytest.mark.parametrize(
    "asked", [{"number": 3}, {"name": "basic render"}, {"target": "directml", "number": 3}]
)
def test_a_software_adapter_is_taken_when_it_is_named(asked):
    assert choose_device((*ALL, WARP), **asked) == WARP


def test_a_provider_with_software_adapters_only_is_refused_unless_one_is_named():
    with pytest.raises(SetupError, match="software adapters only") as caught:
        choose_device((WARP, HOST), target="directml")
    assert "Microsoft Basic Render Driver (DirectML 3)" in caught.value.hint
    assert caught.value.code == "device.software"


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        ({"number": 7}, "device.unknown", "number 7"),
        ({"name": "GeForce"}, "device.unknown", "'GeForce'"),
        ({"name": "RX"}, "device.ambiguous", "several devices"),
        ({"target": "metal"}, "target.unknown", "no provider 'metal'"),
    ],
)
def test_a_wish_that_does_not_fit_is_a_usage_error_with_what_there_is(asked, code, message):
    with pytest.raises(UsageError, match=message) as caught:
        choose_device(ALL, **asked)
    assert caught.value.code == code
    if "name" in asked:
        between = "RX 6700 XT (DirectML 1); AMD Radeon RX 580 (DirectML 2)"
        assert between in caught.value.hint
    assert "RX 6700 XT" in caught.value.hint or "directml" in caught.value.hint


def test_a_provider_that_is_not_here_is_never_replaced_by_another():
    with pytest.raises(SetupError, match="CUDA cannot be used here") as caught:
        choose_device(ALL, target="cuda")
    assert caught.value.code == "device.provider"


def test_this_machine_lists_its_cpu_last():
    assert list_devices()[-1].provider.target == "cpu"


def test_directml_adapters_are_read_from_onnxruntime_s_list(monkeypatch):
    import onnxruntime

    def entry(**metadata):
        kind = SimpleNamespace(name="GPU")
        device = SimpleNamespace(vendor="", vendor_id=0x1002, device_id=0x73BF, type=kind, metadata=metadata)
        return SimpleNamespace(ep_name="DmlExecutionProvider", ep_metadata={}, device=device)

    described = entry(
        Description="AMD Radeon RX 6800",
        DxgiAdapterNumber="3",
        DxgiVideoMemory="16384 MB",
        DxgiHighPerformanceIndex="0",
        Discrete="1",
    )
    bare = entry()
    monkeypatch.setattr(adapters, "read", lambda: ())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["DmlExecutionProvider"])
    warp = entry(Description="Microsoft Basic Render Driver", DxgiAdapterNumber="4")
    monkeypatch.setattr(devices, "listed_by_onnxruntime", lambda: [bare, described, warp])
    first, second, third = list_devices()
    assert (first.software, second.software, third.software) == (False, False, True)
    assert (first.number, first.discrete, first.memory_bytes, first.listed) == (0, None, None, 0)
    assert (second.number, second.discrete, second.memory_bytes, second.listed) == (3, True, 2**34, 1)
    assert str(first) == "AMD GPU (DirectML 0)"
    assert str(second) == "AMD Radeon RX 6800 (DirectML 3)"


def test_a_plug_in_for_gpus_that_is_given_the_processor_is_software(monkeypatch):
    import onnxruntime

    kind = SimpleNamespace(name="CPU")
    host = SimpleNamespace(vendor="AMD", vendor_id=0x1022, device_id=0, type=kind, metadata={})
    entry = SimpleNamespace(ep_name="WebGpuExecutionProvider", ep_metadata={}, device=host)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(devices, "listed_by_onnxruntime", lambda: [entry])
    software, cpu = list_devices()
    assert (str(software), software.software) == ("AMD CPU (WebGPU 0)", True)
    assert choose_device([software, cpu]) == cpu
    assert choose_device([software, cpu], target="webgpu", number=0) == software


def test_one_listed_card_goes_by_the_name_that_its_driver_gives(monkeypatch):
    import onnxruntime

    kind = SimpleNamespace(name="GPU")
    card = SimpleNamespace(vendor="", vendor_id=0x10DE, type=kind, metadata={})
    entry = SimpleNamespace(ep_name="CUDAExecutionProvider", ep_metadata={}, device=card)
    known = CudaDevice(name="NVIDIA GeForce RTX 3060", memory_bytes=12 * 2**30, integrated=False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(devices, "cuda_devices", lambda: (known,))
    for listed, places in (([], None), ([entry], 0)):
        monkeypatch.setattr(devices, "listed_by_onnxruntime", lambda listed=listed: listed)
        (device,) = list_devices()
        assert (str(device), device.memory_bytes) == ("NVIDIA GeForce RTX 3060 (CUDA 0)", 12 * 2**30)
        assert (device.listed, device.discrete) == (places, True)


@pytest.mark.skipif(sys.platform == "win32", reason="sysfs has names that Windows does not allow")
def test_hardware_without_a_product_name_goes_by_the_system_s(monkeypatch, tmp_path):
    import onnxruntime

    card = tmp_path / "sys/bus/pci/devices/0000:03:00.0"
    card.mkdir(parents=True)
    told = {
        "class": "0x030000",
        "vendor": "0x1002",
        "device": "0x73bf",
        "mem_info_vram_total": str(16 * 2**30),
    }
    for name, text in told.items():
        (card / name).write_text(text, encoding="utf-8")
    (tmp_path / "usr/share/misc").mkdir(parents=True)
    listing = "1002  Advanced Micro Devices\n\t73bf  Navi 21 [Radeon RX 6800]\n"
    (tmp_path / "usr/share/misc/pci.ids").write_text(listing, encoding="utf-8")
    kind = SimpleNamespace(name="GPU")

    def entry(device_id):
        host = SimpleNamespace(vendor="", vendor_id=0x1002, device_id=device_id, type=kind, metadata={})
        return SimpleNamespace(ep_name="WebGpuExecutionProvider", ep_metadata={}, device=host)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(devices, "listed_by_onnxruntime", lambda: [entry(0x73BF), entry(0x744C)])
    monkeypatch.setattr(adapters, "read", lambda: linux.read(tmp_path))
    known, unknown, cpu = list_devices()
    assert (str(known), known.memory_bytes) == ("Navi 21 [Radeon RX 6800] (WebGPU 0)", 16 * 2**30)
    assert (str(unknown), unknown.memory_bytes) == ("AMD GPU (WebGPU 1)", None)
    assert cpu.provider.target == "cpu"

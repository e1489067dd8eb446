"""Adapters told by programs on PATH: small scripts that print what the real ones print, or junk."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("these programs are asked on Linux only", allow_module_level=True)

from sdsetup.machine import adapters
from sdsetup.machine.adapters import external_tools, linux, nvidia_smi, rocm, vulkan

GIB = 1024**3
MIB = 1024**2
RECORDED = Path(__file__).parent / "recorded"
PROGRAMS = ("nvidia-smi", "vulkaninfo", "amd-smi", "rocm-smi", "rocminfo")

Put = Callable[..., None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put a program on PATH that prints a recording, or does what a line of shell says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(program: str, recording: str = "", *, does: str = "") -> None:
        script = folder / program
        script.write_text(f"#!/bin/sh\n{does or f'exec /bin/cat {RECORDED / recording}'}\n")
        script.chmod(0o755)

    return put


def _card(root: Path, address: str, vendor: int, device: int, **files: str) -> None:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    said = {"class": "0x030000", "vendor": f"{vendor:#06x}", "device": f"{device:#06x}", **files}
    for name, text in said.items():
        (folder / name).write_text(text + "\n")


def test_nvidia_cards_get_name_memory_and_driver_and_stay_one_each(tmp_path: Path, put: Put) -> None:
    put("nvidia-smi", "nvidia-smi.txt")
    _card(tmp_path, "0000:01:00.0", 0x10DE, 0x2206)
    _card(tmp_path, "0000:41:00.0", 0x10DE, 0x2684)
    first, second = linux.read(tmp_path)
    assert (first.name, first.vram_bytes) == ("NVIDIA GeForce RTX 3080", 10240 * MIB)
    assert (second.name, second.vram_bytes) == ("NVIDIA GeForce RTX 4090", 24564 * MIB)
    assert {first.driver_version, second.driver_version} == {"550.54.14"}
    assert [first.index, second.index] == [0, 1]


def test_cards_that_sysfs_does_not_show_are_told_by_the_tool_alone(tmp_path: Path, put: Put) -> None:
    put("nvidia-smi", "nvidia-smi.txt")
    first, second = linux.read(tmp_path)
    assert (first.vendor, first.device_id, second.device_id) == ("NVIDIA", 0x2206, 0x2684)
    assert (first.integrated, first.software) == (False, False)


@pytest.mark.parametrize(
    ("program", "recording", "version", "memory"),
    [
        ("amd-smi", "amd-smi.txt", "6.8.5", 16368 * MIB),
        ("amd-smi", "amd-smi-old.txt", "6.3.6", 16368 * MIB),
        ("rocm-smi", "rocm-smi.txt", "6.7.0", 17163091968),
        ("rocminfo", "rocminfo.txt", "", 16760832 * 1024),
    ],
)
def test_each_tool_of_rocm_completes_what_sysfs_shows(
    program: str, recording: str, version: str, memory: int, tmp_path: Path, put: Put
) -> None:
    put(program, recording)
    _card(tmp_path, "0000:03:00.0", 0x1002, 0x73BF)
    (only,) = linux.read(tmp_path)
    assert only.name == "AMD Radeon RX 6800 XT"
    assert (only.driver_version, only.vram_bytes) == (version, memory)
    assert only.device_id == 0x73BF


def test_the_newest_tool_of_rocm_is_believed_and_the_next_when_it_fails(put: Put) -> None:
    put("rocminfo", "rocminfo.txt")
    put("rocm-smi", "rocm-smi.txt")
    put("amd-smi", "amd-smi.txt")
    assert [each.driver_version for each in rocm.read()] == ["6.8.5"]
    put("amd-smi", does="exit 1")
    assert [each.driver_version for each in rocm.read()] == ["6.7.0"]
    put("rocm-smi", does="echo 'ERROR: no devices'")
    assert [each.address for each in rocm.read()] == ["0000:03:00.0"]


def test_vulkan_names_kinds_and_drivers_but_lists_no_card_twice(tmp_path: Path, put: Put) -> None:
    put("vulkaninfo", "vulkaninfo.txt")
    _card(tmp_path, "0000:00:02.0", 0x8086, 0xA788)
    _card(tmp_path, "0000:03:00.0", 0x1002, 0x73BF)
    intel, card, software = linux.read(tmp_path)
    assert (intel.name, intel.integrated) == ("Intel(R) Graphics (RPL-S)", True)
    assert (card.name, card.integrated) == ("AMD Radeon RX 6800 XT (RADV NAVI21)", False)
    assert card.driver_version == "Mesa 24.0.9-0ubuntu0.1"
    assert software.software
    chosen = adapters.choose((intel, card, software))
    assert chosen is not None
    assert chosen[0] == card


def test_everything_together_gives_each_card_once_with_the_best_of_each(tmp_path: Path, put: Put) -> None:
    for program in PROGRAMS:
        put(program, f"{program}.txt")
    _card(tmp_path, "0000:01:00.0", 0x10DE, 0x2206)
    _card(tmp_path, "0000:03:00.0", 0x1002, 0x73BF, mem_info_vram_total=str(16 * GIB))
    found = linux.read(tmp_path)
    assert [(each.vendor_id, each.device_id) for each in found] == [
        (0x10DE, 0x2206), (0x1002, 0x73BF), (0x10DE, 0x2684), (0x8086, 0xA788), (0x10005, 0),
    ]  # fmt: skip
    amd = found[1]
    # sysfs counts bytes, a vendor's tool names the card as it is sold, and Vulkan only fills what is left.
    assert (amd.name, amd.vram_bytes) == ("AMD Radeon RX 6800 XT", 16 * GIB)
    assert (amd.driver_version, amd.integrated) == ("6.8.5", False)
    assert [each.index for each in found] == list(range(5))


def test_two_equal_cards_stay_two(tmp_path: Path, put: Put) -> None:
    device = (RECORDED / "vulkaninfo.txt").read_text().partition("GPU0:\n")[2].partition("GPU1:")[0]
    (tmp_path / "twice").write_text(f"GPU0:\n{device}GPU1:\n{device}")
    put("vulkaninfo", does=f"exec /bin/cat '{tmp_path / 'twice'}'")
    assert len(linux.read(tmp_path)) == 2
    for address in ("0000:03:00.0", "0000:04:00.0"):
        _card(tmp_path, address, 0x1002, 0x73BF)
    first, second = linux.read(tmp_path)
    assert first.name == second.name == "AMD Radeon RX 6800 XT (RADV NAVI21)"


JUNK = {
    "nothing": "exit 0",
    "a failure": f"/bin/cat {RECORDED / 'nvidia-smi-failed.txt'}; exit 9",
    "a failure that says it went well": f"exec /bin/cat {RECORDED / 'nvidia-smi-failed.txt'}",
    "bytes that are no text": "exec /usr/bin/head -c 100000 /dev/urandom",
    "half a document": 'echo \'{"gpu_data": [{"bus": {"bdf": "0000:03:0\'',
    "another document": 'echo \'{"gpu_data": {"a": 1}, "card0": 7, "card1": {"PCI Bus": [1]}, "system": 0}\'',
    "lists of nothing": 'echo \'[null, 3, "x", {"asic": "N/A", "bus": [], "vram": {"size": {}}}]\'',
    "a deep document": "exec /usr/bin/printf '[%.0s' $(/usr/bin/seq 20000)",
    "fields without sense": "printf 'GPU0:\\n\\tvendorID = many\\n\\tdeviceName = \\n'; echo 'a, b, c, d, e'",
    "an agent without sense": "printf 'Agent 1\\n  Device Type: CPU\\nAgent 2\\n  Size: 7\\n'",
    "a crash": "kill -SEGV $$",
}


@pytest.mark.parametrize("does", JUNK.values(), ids=JUNK)
def test_whatever_the_tools_print_what_sysfs_shows_stays(does: str, tmp_path: Path, put: Put) -> None:
    for program in PROGRAMS:
        put(program, does=does)
    _card(tmp_path, "0000:03:00.0", 0x1002, 0x73BF, mem_info_vram_total=str(16 * GIB))
    (only,) = linux.read(tmp_path)
    assert (only.name, only.vram_bytes, only.driver_version) == ("1002:73bf", 16 * GIB, "")


def test_a_tool_that_hangs_is_left_behind(tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_tools, "LIMIT_SECONDS", 1.0)
    for program in ("nvidia-smi", "amd-smi", "rocm-smi"):
        put(program, does="exec /bin/sleep 600")
    put("rocminfo", "rocminfo.txt")
    _card(tmp_path, "0000:03:00.0", 0x1002, 0x73BF)
    assert [each.name for each in linux.read(tmp_path)] == ["AMD Radeon RX 6800 XT"]


def test_a_file_that_cannot_be_started_is_no_tool(tmp_path: Path, put: Put) -> None:
    for program in PROGRAMS:
        put(program, does="exit 0")
        (tmp_path / "bin" / program).write_bytes(b"\x7fELF not really")
    assert linux.read(tmp_path) == ()


def test_names_keep_brackets_and_emoji_but_no_control_characters() -> None:
    (told_name,) = nvidia_smi.parse("00000000:01:00.0, 0x0, 1, 8, \x1b[31mRTX [\U0001f525], 2\x07\n")
    assert told_name.name == "[31mRTX [\U0001f525], 2"


@pytest.mark.parametrize("memory", ["[N/A]", "[Not Supported]", "-5", "0", "9" * 30, "many"])
def test_memory_that_is_no_amount_is_unknown(memory: str) -> None:
    (only,) = nvidia_smi.parse(f"00000000:01:00.0, 0x220610DE, 550.54.14, {memory}, GB10\n")
    assert only.vram_bytes is None
    assert only.name == "GB10"


def test_numbers_that_stand_for_names_are_none() -> None:
    assert (
        rocm.parse_rocm_smi('{"card0": {"PCI Bus": "0000:03:00.0", "Card series": "0x73bf"}}')[0].name == ""
    )
    agent = "Agent 1\n  Marketing Name: Device 73bf\n  Device Type: GPU\n  BDFID: 0\n"
    assert rocm.parse_rocminfo(agent)[0].name == ""


def test_a_position_on_the_bus_is_told_by_its_bits() -> None:
    agent = "Agent 1\n  Device Type: GPU\n  BDFID: 50432\n  Domain: 1\n"
    assert rocm.parse_rocminfo(agent)[0].address == "0001:c5:00.0"


def test_an_older_vulkaninfo_without_a_driver_s_name_is_understood() -> None:
    text = "GPU0:\n  vendorID = 0x10de\n  deviceID = 0x2684\n  deviceName = NVIDIA GeForce RTX 4090\n"
    (only,) = vulkan.parse(text)
    assert (only.name, only.integrated, only.driver_version) == ("NVIDIA GeForce RTX 4090", None, "")


@pytest.mark.parametrize(
    "silent", ["N/A", "[N/A]", "[Not Supported]", "not supported", "Unknown", "", 3, None]
)
def test_words_that_say_nothing_are_none(silent: object) -> None:
    assert external_tools.words(silent) == ""


def test_words_are_on_one_line_and_short() -> None:
    assert external_tools.words("a\x00b \t\n  c") == "a b c"
    assert external_tools.words("x" * 121) == "x" * 120


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (29772, 29772),
        ("29772", 29772),
        ("0x744c", 0x744C),
        ("-1", 0),
        ("many", 0),
        (2**50 - 1, 2**50 - 1),
        (2**50, 0),
    ],
)
def test_numbers_have_bounds(said: object, read: int) -> None:
    assert external_tools.number(said) == read


@pytest.mark.parametrize(
    ("said", "unit", "size"),
    [(1, 1, 1), ("0", 5, None), (2**40, 2**10, None), (2**40 - 1, 2**10, 2**50 - 2**10)],
)
def test_sizes_have_bounds(said: object, unit: int, size: int | None) -> None:
    assert external_tools.size_bytes(said, unit) == size


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("00000000:0A:00.0", "0000:0a:00.0"),
        ("0000:0a:00.7", "0000:0a:00.7"),
        ("0001:0a:00.7", "0001:0a:00.7"),
        ("00010000:0a:00.7", ""),
        ("0000:0a:00.8", ""),
        (None, ""),
    ],
)
def test_addresses_are_written_as_sysfs_writes_them(said: object, address: str) -> None:
    assert external_tools.pci_address(said) == address


def test_a_program_is_asked_or_is_not_there(put: Put) -> None:
    put("mine", does='echo "$*"')
    put("fails", does="echo words; exit 3")
    put("odd", does="printf 'a\\377b'")
    assert external_tools.ask("mine", "a", "b c") == "a b c\n"
    assert external_tools.ask("fails") == external_tools.ask("not-there") == ""
    assert external_tools.ask("odd") == "a\ufffdb"


def test_what_a_program_does_not_say_is_nothing() -> None:
    assert external_tools.AdapterReading() == external_tools.AdapterReading(
        address="",
        vendor_id=0,
        device_id=0,
        name="",
        vram_bytes=None,
        driver_version="",
        software=False,
        integrated=None,
    )


def seen(name: str = "", **fields: object) -> linux._Seen:
    known = {"index": 0, "name": name, "vendor_id": 1, "device_id": 2, **fields}
    return linux._Seen(adapter=adapters.Adapter(**known))  # type: ignore[arg-type]


def test_a_reading_completes_what_was_not_known() -> None:
    told = external_tools.AdapterReading(
        vendor_id=1,
        device_id=2,
        name="sold as",
        vram_bytes=5,
        driver_version="v",
        integrated=False,
        address="a",
    )
    (bare,) = linux._merge([seen("1:2")], [told])
    assert bare.adapter == adapters.Adapter(
        index=0, name="sold as", vendor_id=1, device_id=2, vram_bytes=5, driver_version="v", integrated=False
    )
    assert (bare.address, bare.named) == ("a", True)
    whole = seen("1:2", vram_bytes=7, driver_version="w", integrated=True)
    (kept,) = linux._merge([whole], [told])
    assert (kept.adapter.vram_bytes, kept.adapter.driver_version, kept.adapter.integrated) == (7, "w", True)
    later = external_tools.AdapterReading(vendor_id=1, device_id=2, name="another name", address="a")
    (named,) = linux._merge([bare], [later])
    assert named.adapter.name == "sold as"
    nameless = external_tools.AdapterReading(vendor_id=1, device_id=2)
    (still,) = linux._merge([seen("1:2")], [nameless])
    assert (still.adapter.name, still.named) == ("1:2", False)


def test_readings_without_an_address_speak_of_one_adapter_each() -> None:
    told = [external_tools.AdapterReading(vendor_id=1, device_id=2, name=name) for name in ("a", "b", "c")]
    merged = linux._merge([seen("x"), seen("y")], told)
    assert [each.adapter.name for each in merged] == ["a", "b", "c"]
    placed = linux._Seen(adapter=seen("x").adapter, address="0000:03:00.0")
    other = external_tools.AdapterReading(vendor_id=1, device_id=2, name="z", address="0000:04:00.0")
    assert [each.adapter.name for each in linux._merge([placed], [other])] == ["x", "z"]
    same = external_tools.AdapterReading(vendor_id=9, device_id=9, name="z", address="0000:03:00.0")
    assert [each.adapter.name for each in linux._merge([placed], [same])] == ["z"]
    program = external_tools.AdapterReading(vendor_id=3, device_id=4, name="llvmpipe", software=True)
    added = linux._merge([placed], [program])[1].adapter
    assert (added.vendor_id, added.device_id, added.software) == (3, 4, True)

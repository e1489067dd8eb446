"""One rule for both who choose: the doctor over adapters, and ``generate`` over ONNX Runtime's devices."""

from itertools import permutations

import pytest

from conversions.providers.adapter_ranking import AdapterRank, best_adapter, is_software
from conversions.providers.table import provider_for
from sdsetup.machine import adapters
from sdsetup.machine.adapters import Adapter
from sdsetup.runtime.devices import Device, choose_device

GIB = 2**30
DIRECTML, HOST = provider_for("directml"), Device(provider=provider_for("cpu"), name="CPU")

INTEGRATED = AdapterRank(index=0, integrated=True, rank=0, memory_bytes=GIB // 2)
FAST = AdapterRank(index=2, integrated=False, rank=1, memory_bytes=8 * GIB)
LARGE = AdapterRank(index=1, integrated=False, rank=2, memory_bytes=24 * GIB)
UNKNOWN = AdapterRank(index=3)
WARP = AdapterRank(index=4, software=True, rank=0, memory_bytes=64 * GIB)


def _unranked(standing: AdapterRank) -> AdapterRank:
    return AdapterRank(
        index=standing.index, integrated=standing.integrated, memory_bytes=standing.memory_bytes
    )


CASES = {
    "discrete before an integrated one that is called faster": ((INTEGRATED, FAST), FAST),
    "the fastest before the one with most memory": ((LARGE, FAST), FAST),
    "without an order by speed the most memory": ((_unranked(FAST), _unranked(LARGE)), _unranked(LARGE)),
    "one in the order by speed before one that is not": ((UNKNOWN, LARGE), LARGE),
    "an unknown kind before an integrated one": ((INTEGRATED, UNKNOWN), UNKNOWN),
    "all else equal the lower index": ((UNKNOWN, AdapterRank(index=5)), UNKNOWN),
    "hardware before software": ((WARP, INTEGRATED), INTEGRATED),
    "one whose memory is known before one whose is not": (
        (UNKNOWN, AdapterRank(index=5, memory_bytes=1)),
        AdapterRank(index=5, memory_bytes=1),
    ),
    "nothing but software": ((WARP,), None),
}


def _adapter(standing: AdapterRank) -> Adapter:
    return Adapter(
        index=standing.index,
        name=f"adapter {standing.index}",
        software=standing.software,
        integrated=standing.integrated,
        rank=standing.rank,
        vram_bytes=standing.memory_bytes,
    )


def _device(standing: AdapterRank) -> Device:
    return Device(
        provider=DIRECTML,
        name=f"adapter {standing.index}",
        number=standing.index,
        software=standing.software,
        discrete=None if standing.integrated is None else not standing.integrated,
        rank=standing.rank,
        memory_bytes=standing.memory_bytes,
    )


@pytest.mark.parametrize(("present", "expected"), CASES.values(), ids=CASES)
def test_the_doctor_names_the_adapter_that_generate_takes(
    present: tuple[AdapterRank, ...], expected: AdapterRank | None
) -> None:
    for order in permutations(present):
        chosen = adapters.choose([_adapter(standing) for standing in order])
        taken = choose_device([*map(_device, order), HOST])
        if expected is None:
            assert chosen is None
            assert taken == HOST
        else:
            assert chosen is not None
            assert chosen[0] == _adapter(expected)
            assert taken == _device(expected)


def test_an_adapter_and_a_device_hand_everything_that_decides_to_the_rule() -> None:
    for standing in (INTEGRATED, FAST, LARGE, UNKNOWN, WARP):
        assert _adapter(standing).adapter_rank == _device(standing).adapter_rank == standing


@pytest.mark.parametrize(
    ("present", "reason"),
    [
        ((FAST,), "only hardware adapter"),
        ((FAST, WARP), "only hardware adapter"),
        ((INTEGRATED, FAST), "memory of its own"),
        ((LARGE, FAST), "fastest"),
        ((_unranked(FAST), _unranked(LARGE)), "most memory"),
        ((UNKNOWN, AdapterRank(index=5)), "first"),
    ],
)
def test_the_reason_is_what_decided(present: tuple[AdapterRank, ...], reason: str) -> None:
    chosen = adapters.choose([_adapter(standing) for standing in present])
    assert chosen is not None
    assert reason in chosen[1]


def test_what_is_not_known_of_an_adapter_is_none() -> None:
    assert AdapterRank(index=5) == AdapterRank(
        index=5, software=False, integrated=None, rank=None, memory_bytes=None
    )
    assert not is_software("anything")


def test_nothing_comes_first_of_nothing() -> None:
    empty: list[Adapter] = []
    assert best_adapter(empty) is None


@pytest.mark.parametrize(
    ("name", "ids", "software"),
    [
        ("Microsoft Basic Render Driver", (0, 0), True),
        ("anything", (0x1414, 0x8C), True),
        ("llvmpipe (LLVM 19.1.7, 256 bits)", (0x10005, 0), True),
        ("SwiftShader Device (LLVM 16.0.0)", (0x1AE0, 0xC0DE), True),
        ("AMD Radeon RX 6800", (0x1002, 0x73BF), False),
        ("Microsoft Remote Display Adapter", (0x1414, 0x1234), False),
    ],
)
def test_software_is_known_by_number_or_name(name: str, ids: tuple[int, int], software: bool) -> None:
    assert is_software(name, *ids) is software

"""A driver in Python that answers as NVIDIA's does, by ctypes references."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from conversions.providers.cuda_devices import CudaDevice, cuda_devices, read_devices

CARDS = [(b"NVIDIA GeForce RTX 4070", 12 * 2**30, 0), (b"NVIDIA Orin", 8 * 2**30, 1)]


class Driver:
    def __init__(self, failing: str = "", cards: list[tuple[bytes, int, int]] = CARDS) -> None:
        self.failing, self.cards = failing, cards

    def __getattr__(self, function: str) -> Any:
        def call(*arguments: Any) -> int:
            answer = getattr(self, f"answer_{function}", None)
            if answer is not None:
                answer(*arguments)
            return 100 if function == self.failing else 0

        if function.startswith("answer_"):
            raise AttributeError(function)
        return call

    def answer_cuInit(self, flags: int) -> None:  # noqa: N802
        assert flags == 0  # "must be 0"

    def answer_cuDeviceGetCount(self, count: Any) -> None:  # noqa: N802
        count._obj.value = len(self.cards)

    def answer_cuDeviceGet(self, handle: Any, place: int) -> None:  # noqa: N802
        handle._obj.value = place + 40

    def answer_cuDeviceGetName(self, name: Any, room: int, handle: Any) -> None:  # noqa: N802
        assert room == len(name)
        name.value = self.cards[handle.value - 40][0]

    def answer_cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> None:  # noqa: N802
        memory._obj.value = self.cards[handle.value - 40][1]

    def answer_cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> None:  # noqa: N802
        assert attribute == 18
        value._obj.value = self.cards[handle.value - 40][2]


def test_cards_are_read_in_the_driver_s_order() -> None:
    assert read_devices(Driver()) == tuple(
        CudaDevice(name=name.decode(), memory_bytes=memory, integrated=bool(integrated))
        for name, memory, integrated in CARDS
    )


@pytest.mark.parametrize(
    "function",
    [
        "cuInit",
        "cuDeviceGetCount",
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceTotalMem_v2",
        "cuDeviceGetAttribute",
    ],
)
def test_a_driver_that_fails_gives_no_cards(function: str) -> None:
    assert read_devices(Driver(failing=function)) == ()


@pytest.mark.parametrize(
    ("platform", "library"), [("win32", "nvcuda.dll"), ("linux", "libcuda.so.1"), ("cygwin", "libcuda.so.1")]
)
def test_the_driver_is_the_system_s_library(
    platform: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Driver:
        if name != library:
            raise OSError(name)
        return Driver()

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert [found.name for found in cuda_devices()] == ["NVIDIA GeForce RTX 4070", "NVIDIA Orin"]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: load(f"not {name}"))
    assert cuda_devices() == ()


def test_a_name_that_is_no_utf_8_is_shown_as_far_as_it_is() -> None:
    (found,) = read_devices(Driver(cards=[(b"NVIDIA \xff 1", 1, 0)]))
    assert found.name == "NVIDIA \N{REPLACEMENT CHARACTER} 1"


def test_this_machine_is_asked_without_an_error() -> None:
    assert all(found.memory_bytes > 0 for found in cuda_devices())

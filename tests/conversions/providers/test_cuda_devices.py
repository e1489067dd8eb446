"""A driver in Python that answers as NVIDIA's does, by ctypes references."""

from __future__ import annotations

from typing import Any

import pytest

from conversions.providers.cuda_devices import CudaDevice, cuda_devices, read_devices

CARDS = [("NVIDIA GeForce RTX 4070", 12 * 2**30, 0), ("NVIDIA Orin", 8 * 2**30, 1)]


class Driver:
    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    def __getattr__(self, function: str) -> Any:
        def call(*arguments: Any) -> int:
            answer = getattr(self, f"answer_{function}", None)
            if answer is not None:
                answer(*arguments)
            return 100 if function == self.failing else 0

        if function.startswith("answer_"):
            raise AttributeError(function)
        return call

    def answer_cuDeviceGetCount(self, count: Any) -> None:  # noqa: N802
        count._obj.value = len(CARDS)

    def answer_cuDeviceGet(self, handle: Any, place: int) -> None:  # noqa: N802
        handle._obj.value = place + 40

    def answer_cuDeviceGetName(self, name: Any, room: int, handle: Any) -> None:  # noqa: N802
        assert room == len(name)
        name.value = CARDS[handle.value - 40][0].encode()

    def answer_cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> None:  # noqa: N802
        memory._obj.value = CARDS[handle.value - 40][1]

    def answer_cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> None:  # noqa: N802
        assert attribute == 18
        value._obj.value = CARDS[handle.value - 40][2]


def test_cards_are_read_in_the_driver_s_order() -> None:
    assert read_devices(Driver()) == tuple(
        CudaDevice(name=name, memory_bytes=memory, integrated=bool(integrated))
        for name, memory, integrated in CARDS
    )


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGetCount", "cuDeviceGetName", "cuDeviceTotalMem_v2"])
def test_a_driver_that_fails_gives_no_cards(function: str) -> None:
    assert read_devices(Driver(failing=function)) == ()


def test_this_machine_is_asked_without_an_error() -> None:
    assert all(found.memory_bytes > 0 for found in cuda_devices())

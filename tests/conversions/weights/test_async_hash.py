from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from conversions.weights.async_hash import Digest


def test_the_hash_is_that_of_all_bytes_in_order() -> None:
    pieces = [bytes([number]) * (number + 1) for number in range(200)]
    with ThreadPoolExecutor(1) as thread:
        first, second = Digest(hashlib.sha256(), thread), Digest(hashlib.sha256(b"before"), thread)
        for piece in pieces:
            first.update(piece)
            second.update(bytearray(piece))
        assert first.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()
        assert first.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()
        assert second.hexdigest() == hashlib.sha256(b"before" + b"".join(pieces)).hexdigest()


class Held:
    """A hash that waits until it may go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.sizes: list[int] = []

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        assert self.go_on.wait(30)
        self.sizes.append(len(data))

    def hexdigest(self) -> str:
        return str(sum(self.sizes))


def test_64_mib_may_wait_and_more_makes_the_caller_wait() -> None:
    held, half = Held(), bytes(32 << 20)
    with ThreadPoolExecutor(1) as thread:
        digest = Digest(held, thread)
        digest.update(half)
        digest.update(half)
        assert held.sizes == []
        more = threading.Thread(target=digest.update, args=(b"1",))
        more.start()
        more.join(0.2)
        assert more.is_alive()
        held.go_on.set()
        more.join(30)
        assert not more.is_alive()
        assert len(half) in held.sizes
        assert digest.hexdigest() == str((64 << 20) + 1)


def test_a_single_byte_is_waited_for() -> None:
    held, found = Held(), []
    with ThreadPoolExecutor(1) as thread:
        digest = Digest(held, thread)
        digest.update(b"1")
        asking = threading.Thread(target=lambda: found.append(digest.hexdigest()))
        asking.start()
        asking.join(0.1)
        assert not found
        held.go_on.set()
        asking.join(30)
    assert found == ["1"]


def test_what_the_hash_raises_reaches_the_caller() -> None:
    with ThreadPoolExecutor(1) as thread:
        digest = Digest(hashlib.sha256(), thread)
        digest.update("text")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            digest.hexdigest()

"""Ways to misbehave: each is a value that says where, how often and what."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.hub_server.server import Exchange

Action = Callable[["Exchange"], bool]
"""Does the misbehaving; returns whether the request is answered by that."""


@dataclass(kw_only=True)
class Fault:
    """Misbehaviour at requests whose ``METHOD path`` matches ``where``.

    Attributes:
        where: Pattern, for example ``"GET /cdn/*"``.
        action: What to do instead of, or before, the right answer.
        times: At how many requests; a negative number means at all of them.
        skip: How many matching requests are answered rightly before.
    """

    where: str
    action: Action
    times: int = 1
    skip: int = 0
    met: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def claims(self, request: str) -> bool:
        if not fnmatch(request, self.where):
            return False
        with self._lock:
            if self.skip > 0:
                self.skip -= 1
                return False
            if self.times == 0:
                return False
            self.times -= 1
            self.met += 1
            return True


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Action:
    """Answer with a status code."""

    def act(exchange: Exchange) -> bool:
        exchange.answer(code, headers or {}, body)
        return True

    return act


def reset(after: int = 0) -> Action:
    """Break the connection hard, with a TCP reset, after so many bytes of the body."""

    def act(exchange: Exchange) -> bool:
        exchange.body.stop_after(after, _reset_connection)
        return False

    return act


def close(after: int = 0) -> Action:
    """Close the connection politely although more was promised."""

    def act(exchange: Exchange) -> bool:
        exchange.body.stop_after(after, lambda connection: connection.shutdown(socket.SHUT_RDWR))
        return False

    return act


def hang_up() -> Action:
    """Close the connection without any answer."""

    def act(exchange: Exchange) -> bool:
        _reset_connection(exchange.connection)
        return True

    return act


def stall(after: int, seconds: float) -> Action:
    """Say nothing more for a while after so many bytes."""

    def act(exchange: Exchange) -> bool:
        exchange.body.stop_after(after, lambda _: exchange.hub.closing.wait(seconds))
        return False

    return act


def silence(seconds: float) -> Action:
    """Accept the request and say nothing for a while."""

    def act(exchange: Exchange) -> bool:
        exchange.hub.closing.wait(seconds)
        _reset_connection(exchange.connection)
        return True

    return act


def drip(piece: int, pause: float, until: int) -> Action:
    """Send the first bytes in small pieces, slowly, but never silently."""

    def act(exchange: Exchange) -> bool:
        exchange.body.slow = (piece, pause, until)
        return False

    return act


def flip(position: int) -> Action:
    """Change one byte of the content, by its position in the file."""

    def act(exchange: Exchange) -> bool:
        exchange.body.flipped = position
        return False

    return act


def pad(count: int) -> Action:
    """Send more bytes than the file has, and say so."""

    def act(exchange: Exchange) -> bool:
        exchange.body.padding = count
        return False

    return act


def ignore_range() -> Action:
    """Send the whole file whatever range is asked for."""

    def act(exchange: Exchange) -> bool:
        exchange.body.ignores_range = True
        return False

    return act


def shorten(after: int) -> Action:
    """End the body early without having promised a length, so that the transfer looks complete."""

    def act(exchange: Exchange) -> bool:
        exchange.body.chunked_until = after
        return False

    return act


def without_headers(*names: str) -> Action:
    """Leave headers out of the answer."""

    def act(exchange: Exchange) -> bool:
        exchange.omitted = frozenset(name.lower() for name in names)
        return False

    return act


def refuse_range() -> Action:
    """Say that the asked range lies outside of the file."""

    def act(exchange: Exchange) -> bool:
        if "range" not in exchange.headers:
            return False
        exchange.answer(416, {})
        return True

    return act


def alter_headers(headers: dict[str, str]) -> Action:
    """Send other values in some headers of the right answer."""

    def act(exchange: Exchange) -> bool:
        exchange.altered = headers
        return False

    return act


def rewrite(change: Callable[[bytes], bytes]) -> Action:
    """Send something else than the right body of a small answer, with its right length."""

    def act(exchange: Exchange) -> bool:
        exchange.rewritten = change
        return False

    return act


def redirect_to_itself() -> Action:
    """Answer with a redirect to the same address."""

    def act(exchange: Exchange) -> bool:
        exchange.answer(302, {"Location": exchange.url.path})
        return True

    return act


def then(do: Callable[[], object]) -> Action:
    """Change the state of the server when the request comes, and answer by the new state."""

    def act(exchange: Exchange) -> bool:
        do()
        return False

    return act


def _reset_connection(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.close(connection.detach())

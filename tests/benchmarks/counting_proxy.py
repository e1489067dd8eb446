"""A proxy on loopback that counts what comes through it: all that an installation downloads."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_PIECE = 2**16


@dataclass(kw_only=True)
class Counted:
    """What came through.

    Attributes:
        address: Of the proxy, for HTTPS_PROXY.
        received: Bytes that each host sent, TLS and headers included.
    """

    address: str
    received: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def total(self) -> int:
        """All bytes that were received."""
        return sum(self.received.values())


@contextmanager
def counting_proxy() -> Iterator[Counted]:
    """Serve CONNECT (RFC 9110, section 9.3.6) while the block runs."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.counted = Counted(address=f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.counted
        finally:
            server.shutdown()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    counted: Counted


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    rbufsize = 0  # what follows the head belongs to the connection

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (byte := self.rfile.read(1)):
            head += byte
        method, _, rest = head.partition(b" ")
        host, _, port = rest.split(b" ", 1)[0].decode().rpartition(":")
        if method != b"CONNECT":
            self.wfile.write(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            return
        try:
            other = socket.create_connection((host, int(port)), timeout=30)
        except OSError:
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        other.settimeout(None)
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        up = threading.Thread(target=self._carry, args=(self.connection, other, ""), daemon=True)
        up.start()
        self._carry(other, self.connection, host)
        up.join()

    def _carry(self, source: socket.socket, target: socket.socket, host: str) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                target.sendall(piece)
                if host:
                    counted = self.server.counted
                    with counted.lock:
                        counted.received[host] = counted.received.get(host, 0) + len(piece)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

"""A SOCKS 4, 4a and 5 proxy on loopback that remembers what it was asked for."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator


class SocksServer:
    """Accepts connections until it is closed.

    Attributes:
        login: User name and password that SOCKS 5 clients must give; None asks for none.
        asked: Hosts and ports that clients asked for.
        to: Where connections really go, whatever was asked for; None goes where was asked.
    """

    def __init__(self) -> None:
        self.login: tuple[str, str] | None = None
        self.asked: list[tuple[str, int]] = []
        self.to: tuple[str, int] | None = None
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(client,), daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, IndexError):
            version = _read(client, 1)[0]
            far = self._socks5(client) if version == 5 else self._socks4(client)
            if far is None:
                return
            with far:
                back = threading.Thread(target=_pump, args=(far, client), daemon=True)
                back.start()
                _pump(client, far)
                back.join()

    def _socks5(self, client: socket.socket) -> socket.socket | None:
        methods = _read(client, _read(client, 1)[0])
        if self.login is not None:
            if 2 not in methods:
                client.sendall(b"\x05\xff")
                return None
            client.sendall(b"\x05\x02")
            _read(client, 1)
            user = _read(client, _read(client, 1)[0]).decode()
            password = _read(client, _read(client, 1)[0]).decode()
            client.sendall(b"\x01" + (b"\x00" if (user, password) == self.login else b"\x01"))
            if (user, password) != self.login:
                return None
        else:
            client.sendall(b"\x05\x00")
        _, _, _, kind = _read(client, 4)
        if kind == 1:
            host = socket.inet_ntop(socket.AF_INET, _read(client, 4))
        elif kind == 4:
            host = socket.inet_ntop(socket.AF_INET6, _read(client, 16))
        else:
            host = _read(client, _read(client, 1)[0]).decode()
        (port,) = struct.unpack(">H", _read(client, 2))
        far = self._open(host, port)
        client.sendall(b"\x05" + (b"\x00" if far else b"\x05") + b"\x00\x01" + bytes(6))
        return far

    def _socks4(self, client: socket.socket) -> socket.socket | None:
        _, port, place = struct.unpack(">BH4s", _read(client, 7))
        while _read(client, 1) != b"\x00":
            pass
        host = socket.inet_ntop(socket.AF_INET, place)
        if host.startswith("0.0.0."):
            name = b""
            while (letter := _read(client, 1)) != b"\x00":
                name += letter
            host = name.decode()
        far = self._open(host, port)
        client.sendall(b"\x00" + (b"\x5a" if far else b"\x5b") + bytes(6))
        return far

    def _open(self, host: str, port: int) -> socket.socket | None:
        self.asked.append((host, port))
        try:
            return socket.create_connection(self.to or (host, port), timeout=10)
        except OSError:
            return None


@contextlib.contextmanager
def socks_server() -> Iterator[SocksServer]:
    server = SocksServer()
    try:
        yield server
    finally:
        server.close()


def _read(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = source.recv(count - len(data))
        if not piece:
            raise OSError("ended")
        data += piece
    return data


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)

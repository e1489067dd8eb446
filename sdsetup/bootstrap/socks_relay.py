"""Let programs that speak HTTP proxies only go through a SOCKS proxy: a relay on this machine's loopback.

pip needs PySocks for a SOCKS proxy, which pip itself would have to fetch. The relay is an HTTP proxy for it;
it answers to nobody without the password that is made for each.

Standard library only. Sources: RFC 1928 (SOCKS 5), RFC 1929 (its passwords), RFC 9110 (CONNECT).
"""

from __future__ import annotations

import base64
import secrets
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import SplitResult, unquote, urlsplit

_CONNECT_SECONDS = 20.0
_HEAD_BYTES = 65536
_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_REFUSED = {
    1: "general failure", 2: "not allowed by its rules", 3: "network unreachable", 4: "host unreachable",
    5: "connection refused", 6: "time to live expired", 7: "command not supported",
    8: "address type not supported",
}  # fmt: skip


def canonical(address: str) -> str:
    """Write a proxy's address with a scheme that programs know: ``socks://`` is SOCKS 5, none is HTTP."""
    address = address.strip()
    if address and "://" not in address:
        return f"http://{address}"
    scheme, separator, rest = address.partition("://")
    return f"socks5h://{rest}" if scheme.lower() == "socks" else f"{scheme.lower()}{separator}{rest}"


def is_socks(address: str) -> bool:
    """Tell whether a proxy's address is a SOCKS proxy's."""
    return canonical(address).startswith(("socks4://", "socks4a://", "socks5://", "socks5h://"))


@contextmanager
def reachable(variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Put relays in place of the SOCKS proxies among environment variables, while the block runs.

    Args:
        variables: The variables of a program that is to be started.

    Yields:
        The variables with addresses of HTTP proxies.
    """
    given = dict(variables)
    proxies = {name: given.get(name) or given.get(name.upper(), "") for name in (*_VARIABLES, "pip_proxy")}
    if not any(map(is_socks, proxies.values())):
        yield given
        return
    with ExitStack() as stack:
        relays = {
            address: stack.enter_context(relay(address))
            for address in set(proxies.values())
            if is_socks(address)
        }
        for name, address in proxies.items():
            if address in relays:
                given.pop(name, None)
                given.pop(name.upper(), None)
                given[name.upper() if name == "pip_proxy" else name] = relays[address]
        yield given


@contextmanager
def relay(proxy: str) -> Iterator[str]:
    """Run an HTTP proxy on loopback that goes on through a SOCKS proxy.

    Args:
        proxy: The SOCKS proxy's address.

    Yields:
        The HTTP proxy's address, its password included.
    """
    password = secrets.token_urlsafe(16)
    upstream = urlsplit(canonical(proxy))
    expected = "basic " + base64.b64encode(f"sdsetup:{password}".encode()).decode()
    with socket.create_server(("127.0.0.1", 0)) as server:
        # Daemons: a connection that hangs ends with the program.
        threading.Thread(target=_serve, args=(server, upstream, expected), daemon=True).start()
        try:
            yield f"http://sdsetup:{password}@127.0.0.1:{server.getsockname()[1]}"
        finally:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, upstream: SplitResult, expected: str) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_handle, args=(client, upstream, expected), daemon=True).start()


def _handle(client: socket.socket, upstream: SplitResult, expected: str) -> None:
    with client, suppress(OSError, ValueError):
        head, rest = _head(client)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        fields = [line.partition(":") for line in lines[1:]]
        allowed = [value.strip() for name, _, value in fields if name.lower() == "proxy-authorization"]
        if not allowed or "basic " + allowed[0].partition(" ")[2].strip() != expected:
            _answer(client, "407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="sdsetup"')
            return
        address = urlsplit(f"//{target}" if method == "CONNECT" else target)
        try:
            far = connect(upstream, address.hostname or "", address.port or 80)
        except OSError as error:
            _answer(client, f"502 {' '.join(str(error).split())[:200]}")
            return
        with far:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = (address.path or "/") + (f"?{address.query}" if address.query else "")
                kept = [
                    f"{name}:{value}"
                    for name, _, value in fields
                    if not name.lower().startswith("proxy-") and name.lower() != "connection"
                ]
                sent = "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""])
                far.sendall(sent.encode("latin-1"))
            far.sendall(rest)
            back = threading.Thread(target=_pump, args=(far, client), daemon=True)
            back.start()
            _pump(client, far)
            back.join()


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    client.settimeout(_CONNECT_SECONDS)
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(4096)
        if not piece or len(data) > _HEAD_BYTES:
            raise ValueError("no head of an HTTP request")
        data += piece
    client.settimeout(None)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _answer(client: socket.socket, status: str, *fields: str) -> None:
    lines = [f"HTTP/1.1 {status}", *fields, "Content-Length: 0", "Connection: close", "", ""]
    client.sendall("\r\n".join(lines).encode("latin-1", "replace"))


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def connect(upstream: SplitResult, host: str, port: int) -> socket.socket:
    """Open a connection through a SOCKS proxy.

    Args:
        upstream: The proxy's address; ``socks4a`` and ``socks5h`` let it look names up.
        host: Where to.
        port: Which port there.

    Raises:
        OSError: The proxy does not answer, is none, or refuses.
    """
    if upstream.scheme in {"socks4", "socks5"}:
        families = socket.AF_INET if upstream.scheme == "socks4" else socket.AF_UNSPEC
        host = str(socket.getaddrinfo(host, port, families, socket.SOCK_STREAM)[0][4][0])
    far = socket.create_connection((upstream.hostname or "", upstream.port or 1080), _CONNECT_SECONDS)
    try:
        (_socks4 if upstream.scheme.startswith("socks4") else _socks5)(far, upstream, host, port)
    except BaseException:
        far.close()
        raise
    far.settimeout(None)
    return far


def _socks5(far: socket.socket, upstream: SplitResult, host: str, port: int) -> None:
    user, password = unquote(upstream.username or "").encode(), unquote(upstream.password or "").encode()
    far.sendall(b"\x05\x02\x00\x02" if user else b"\x05\x01\x00")
    version, method = _read(far, 2)
    if version != 5:
        raise ConnectionError("the proxy is no SOCKS 5 proxy")
    if method == 2 and user:
        far.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        if _read(far, 2)[1] != 0:
            raise ConnectionError("the SOCKS proxy refuses the user name or password")
    elif method != 0:
        raise ConnectionError("the SOCKS proxy wants a user name and password")
    far.sendall(b"\x05\x01\x00" + _address(host) + struct.pack(">H", port))
    _, refused, _, kind = _read(far, 4)
    if refused:
        raise ConnectionError(f"the SOCKS proxy does not reach {host}: {_REFUSED.get(refused, refused)}")
    length = {1: 4, 4: 16}.get(kind) or _read(far, 1)[0]
    _read(far, length + 2)


def _address(host: str) -> bytes:
    for family, kind in ((socket.AF_INET, b"\x01"), (socket.AF_INET6, b"\x04")):
        try:
            return kind + socket.inet_pton(family, host)
        except OSError:
            continue
    name = host.encode("idna")
    return b"\x03" + bytes([len(name)]) + name


def _socks4(far: socket.socket, upstream: SplitResult, host: str, port: int) -> None:
    user = unquote(upstream.username or "").encode()
    try:
        place, name = socket.inet_pton(socket.AF_INET, host), b""
    except OSError:
        place, name = b"\x00\x00\x00\x01", host.encode("idna") + b"\x00"
    far.sendall(b"\x04\x01" + struct.pack(">H", port) + place + user + b"\x00" + name)
    answer = _read(far, 8)
    if answer[1] != 90:
        raise ConnectionError(f"the SOCKS proxy does not reach {host} (answer {answer[1]})")


def _read(far: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = far.recv(count - len(data))
        if not piece:
            raise ConnectionError("the SOCKS proxy ended the connection")
        data += piece
    return data

"""One HTTP request, through a proxy or not, that keeps what the doctor wants to see of it."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import unquote, urlsplit

from sdsetup import __version__

_LIMIT_SECONDS = 4.0
_MOST_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back. ``headers`` have lower-case names; ``issuer`` is the certificate's organisation."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    issuer: str = ""


def request(method: str, url: str, headers: Mapping[str, str], proxy: str = "") -> Answer:
    """Send one request and follow no redirect.

    Raises:
        OSError: No connection, no TLS, or the proxy refused the tunnel.
        http.client.HTTPException: What came back is no HTTP.
        ValueError: The address is no http or https one.
    """
    target = urlsplit(url)
    if target.scheme not in {"http", "https"} or not target.hostname:
        raise ValueError(f"{without_secrets(url)} is no http or https address")
    hop = urlsplit(proxy) if proxy else target
    host, port = hop.hostname or "", hop.port
    secret = _basic(hop.username, hop.password)
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    sent = {"User-Agent": f"sdsetup/{__version__} doctor", **headers}
    connection: HTTPConnection
    if target.scheme == "https":
        connection = HTTPSConnection(host, port, timeout=_LIMIT_SECONDS, context=ssl.create_default_context())
        if proxy:
            connection.set_tunnel(target.hostname, target.port or 443, headers=secret)
    else:
        connection = HTTPConnection(host, port, timeout=_LIMIT_SECONDS)
        if proxy:
            path, sent = url, {**sent, **secret}
    try:
        connection.request(method, path, headers=sent)
        issuer = _issuer(connection)
        response = connection.getresponse()
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=response.read(_MOST_BYTES),
            issuer=issuer,
        )
    finally:
        connection.close()


def without_secrets(text: str) -> str:
    """Take user names and passwords out of addresses."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def _basic(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    plain = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(plain).decode()}"}


def _issuer(connection: HTTPConnection) -> str:
    if not isinstance(connection.sock, ssl.SSLSocket):
        return ""
    certificate = connection.sock.getpeercert() or {}
    names: dict[str, str] = {}
    for part in certificate.get("issuer", ()):
        for pair in part:
            if len(pair) == 2:
                names[str(pair[0])] = str(pair[1])
    return names.get("organizationName") or names.get("commonName", "")

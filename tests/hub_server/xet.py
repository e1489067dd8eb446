"""Enough of a xet storage server for the real client: one xorb per file, chunks stored uncompressed.

Source: https://huggingface.co/docs/xet/api and https://huggingface.co/docs/xet/xorb
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.hub_server.repos import Content, Repo

if TYPE_CHECKING:
    from tests.hub_server.server import Exchange

_CHUNK = 2**16


def answer(exchange: Exchange, repo: Repo, address: str, rest: str) -> None:
    """Answer a request for the list of a file's parts, or for such a part."""
    digest = rest.rsplit("/", 1)[-1]
    content = next(
        (found for tree in repo.commits.values() for found in tree.values() if found.sha256 == digest), None
    )
    if content is None:
        return exchange.answer(404, {})
    if rest.startswith("v1/reconstructions"):
        return _reconstruction(exchange, content, address, digest)
    if rest.startswith("xorb/"):
        return exchange.content(Content(_xorb(content)), {})
    return exchange.answer(404, {})


def _reconstruction(exchange: Exchange, content: Content, address: str, digest: str) -> None:
    chunks = -(-content.size // _CHUNK)
    first, last = 0, content.size - 1
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", exchange.headers.get("range", ""))
    if match:
        first, last = int(match[1]), min(int(match[2]), content.size - 1)
        if first >= content.size:
            return exchange.answer(416, {})
    begin, end = first // _CHUNK, min(last // _CHUNK + 1, chunks)
    unpacked = min(end * _CHUNK, content.size) - begin * _CHUNK
    packed = (begin * (_CHUNK + 8), min(end * _CHUNK, content.size) + end * 8)
    exchange.json(
        {
            "offset_into_first_range": first - begin * _CHUNK,
            "terms": [{"hash": digest, "unpacked_length": unpacked, "range": {"start": begin, "end": end}}],
            "fetch_info": {
                digest: [
                    {
                        "range": {"start": begin, "end": end},
                        "url": f"{address}/xorb/{digest}",
                        "url_range": {"start": packed[0], "end": packed[1] - 1},
                    }
                ]
            },
        }
    )
    return None


def _xorb(content: Content) -> bytes:
    """Chunks, each behind a header: version, length stored (3 bytes), scheme 0, length unpacked (3 bytes)."""
    packed = bytearray()
    whole = b"".join(content.pieces(0, content.size))
    for start in range(0, len(whole), _CHUNK):
        chunk = whole[start : start + _CHUNK]
        length = len(chunk).to_bytes(3, "little")
        packed += b"\0" + length + b"\0" + length + chunk
    return bytes(packed)

"""Stream files from xet, the Hub's chunk storage, from any position."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator

import httpx2
from huggingface_hub.utils import XetFileData
from huggingface_hub.utils._runtime import is_xet_available
from huggingface_hub.utils._xet import (
    get_xet_session,
    refresh_xet_connection_info,
    xet_headers_without_auth,
)

from sdsetup.hub import session

# xet yields data only after a whole run of chunks, so its pauses are longer than with HTTP.
_PATIENCE_FACTOR = 6
_QUEUED_PIECES = 16
_LOOK_UP_SECONDS = 0.2


class XetFailed(httpx2.ReadError):
    """xet failed or stalled; plain HTTP serves the same bytes."""


def is_installed() -> bool:
    """Whether xet is available; ``HF_HUB_DISABLE_XET`` disables it."""
    return bool(is_xet_available())


def pieces(
    data: XetFileData, headers: dict[str, str], size_bytes: int, start: int, end: int | None
) -> Iterator[bytes]:
    """Yield the bytes of a file between ``start`` and ``end``.

    xet itself has no timeout, so it runs in another thread and this one enforces the limit.

    Args:
        data: The file's location in xet, from the Hub's response.
        headers: Headers for requests to the Hub, including the token, which is sent only there.
        size_bytes: Size of the file.
        start: First byte.
        end: One past the last byte; None reads to the end.

    Raises:
        XetFailed: On any failure, and on timeout.
    """
    fifo: queue.Queue[bytes | Exception | None] = queue.Queue(_QUEUED_PIECES)
    given_up = threading.Event()

    def put(item: bytes | Exception | None) -> None:
        while not given_up.is_set():
            with contextlib.suppress(queue.Full):
                fifo.put(item, timeout=_LOOK_UP_SECONDS)
                return

    def pump() -> None:
        from hf_xet import XetFileInfo

        try:
            connection = refresh_xet_connection_info(file_data=data, headers=headers)
            group = get_xet_session().new_download_stream_group(
                endpoint=connection.endpoint,
                token=connection.access_token,
                token_expiry_unix_secs=connection.expiration_unix_epoch,
                token_refresh_url=data.refresh_route,
                token_refresh_headers=headers,
                custom_headers=xet_headers_without_auth(headers),
            )
            stream = group.download_stream(XetFileInfo(data.file_hash, size_bytes), start=start, end=end)
            for piece in stream:
                put(piece)
                if given_up.is_set():
                    stream.cancel()
                    return
            put(None)
        except Exception as error:  # noqa: BLE001 - xet's own exceptions share no base, and all mean the same here
            put(error)

    threading.Thread(target=pump, name="xet", daemon=True).start()
    patience = session.stall_seconds() * _PATIENCE_FACTOR
    left = (size_bytes if end is None else end) - start
    try:
        while True:
            try:
                item = fifo.get(timeout=patience)
            except queue.Empty:
                raise XetFailed(f"xet said nothing for {patience:.0f} s") from None
            if isinstance(item, Exception):
                raise XetFailed(f"xet: {type(item).__name__}") from item
            if item is None and left > 0:  # seen on Windows where xet's server refuses
                raise XetFailed(f"xet ended {left} bytes early")
            if item is None:
                return
            left -= len(item)
            yield item
    finally:
        given_up.set()

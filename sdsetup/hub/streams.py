"""Stream a file of the Hub from any position: over xet where it works, else over plain HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import HfFileMetadata
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from conversions.events import Listener, Notice
from sdsetup import __version__
from sdsetup.errors import SetupError
from sdsetup.hub import session, xet
from sdsetup.hub.model_ref import HubModel, RemoteFile

_PIECE_BYTES = 2**20


class StartOver(Exception):  # noqa: N818 - an instruction, not an error
    """The server ignored the range and sends the file from its beginning."""


class AddressExpired(httpx2.RemoteProtocolError):
    """The signed URL of a file has expired; the Hub issues a new one."""


class Source:
    """Opens files of one model; thread-safe.

    After xet has failed once, plain HTTP is used for all files.

    Args:
        model: The repository at its commit.
        listener: Receives a notice when xet is abandoned.
        allow_xet: Whether to use xet.
    """

    def __init__(self, model: HubModel, listener: Listener, *, allow_xet: bool = True) -> None:
        session.api()
        self._model = model
        self._listener = listener
        self._xet_usable = allow_xet and xet.is_installed()
        self._known: dict[str, HfFileMetadata] = {}

    @contextmanager
    def open(self, file: RemoteFile, start: int = 0, end: int | None = None) -> Iterator[Iterator[bytes]]:
        """Stream ``file`` between two positions.

        Args:
            file: The file to read.
            start: First byte.
            end: One past the last byte; None reads to the end.

        Yields:
            Chunks in order. The stream may end early; the caller counts bytes.

        Raises:
            StartOver: The server ignores ``start``.
            Exception: An error of the request; see ``session.is_transient``.
        """
        headers = build_hf_headers(library_name="sdsetup", library_version=__version__)
        where = self._known.get(file.name)
        if where is None:
            where = self._known[file.name] = self._locate(file, headers)
        try:
            if self._xet_usable and where.xet_file_data is not None and file.size_bytes is not None:
                yield self._over_xet(where, headers, file.size_bytes, start, end)
            else:
                with _over_http(where.location, headers, start, end) as pieces:
                    yield pieces
        except BaseException:
            # URLs expire, access can be revoked: after any error, request a new URL.
            self._known.pop(file.name, None)
            raise

    def give_up_xet(self, reason: str) -> None:
        """Use plain HTTP for all files opened from now on."""
        if self._xet_usable:
            self._xet_usable = False
            self._listener(Notice(text=f"{reason}; continuing over plain HTTP."))

    def _locate(self, file: RemoteFile, headers: dict[str, str]) -> HfFileMetadata:
        """Ask the Hub for the URL of the content; URLs of large files are signed and expire."""
        url = hf_hub_url(self._model.repo_id, file.name, revision=self._model.commit)
        found = get_hf_file_metadata(url, timeout=session.stall_seconds(), headers=headers)
        if found.commit_hash is None or found.etag is None:
            raise ValueError(f"no commit or hash for {file.name}")
        if (found.size is not None and found.size != file.size_bytes) or found.etag != file.etag:
            raise SetupError(
                "hub.inconsistent",
                f"{file.name} of {self._model.repo_id} differs between the Hub's list and its server.",
                "Run the same command in a few minutes; if HF_ENDPOINT names a mirror, try without it.",
            )
        return found

    def _over_xet(
        self, where: HfFileMetadata, headers: dict[str, str], size_bytes: int, start: int, end: int | None
    ) -> Iterator[bytes]:
        assert where.xet_file_data is not None  # the caller looked
        try:
            yield from xet.pieces(where.xet_file_data, headers, size_bytes, start, end)
        except xet.XetFailed as error:
            self.give_up_xet(str(error))
            raise


@contextmanager
def _over_http(
    location: str, headers: dict[str, str], start: int, end: int | None
) -> Iterator[Iterator[bytes]]:
    to_hub = _is_hub(location)
    sent = {name: value for name, value in headers.items() if to_hub or name.lower() != "authorization"}
    sent["Accept-Encoding"] = "identity"
    if start or end is not None:
        sent["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    with get_session().stream("GET", location, headers=sent, timeout=session.stall_seconds()) as response:
        if response.status_code == 416 and start:
            raise StartOver
        try:
            hf_raise_for_status(response)
        except HfHubHTTPError as error:
            if not to_hub and error.response.status_code in (401, 403, 404, 410):
                raise AddressExpired(f"{urlsplit(location).netloc} refuses its own address") from error
            raise
        if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise StartOver
        yield response.iter_bytes(_PIECE_BYTES)


def _is_hub(address: str) -> bool:
    """Whether the token may be sent to a URL: only to the Hub or the user's mirror."""
    parts = urlsplit(address)
    chosen = urlsplit(constants.ENDPOINT)
    if (parts.scheme, parts.netloc) == (chosen.scheme, chosen.netloc):
        return True
    return parts.scheme == "https" and parts.netloc in ("huggingface.co", "hf.co")

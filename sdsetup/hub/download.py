"""Download files into the Hub's cache or a folder: resume, verify, then move into place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import httpx2
from filelock import Timeout
from huggingface_hub.utils import WeakFileLock

from conversions.events import Advanced, Finished, Listener, Notice, Started, ignore
from sdsetup import disk_space
from sdsetup.errors import SetupError
from sdsetup.hub import cache
from sdsetup.hub.access import translate_errors
from sdsetup.hub.model_ref import HubModel, RemoteFile
from sdsetup.hub.session import Retries
from sdsetup.hub.streams import Source, StartOver

if TYPE_CHECKING:
    from sdsetup.hub.plan import DownloadPlan

_AT_ONCE = 4
_TASK = "download"
_READ_BYTES = 2**22


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Stopped(Exception):  # noqa: N818 - not shown to anyone
    """Another file has failed, or the user has interrupted the download."""


def download(plan: DownloadPlan, *, listener: Listener = ignore) -> Path:
    """Download the files of a plan.

    Args:
        plan: From ``plan.plan``.
        listener: Receives the number of bytes over all files.

    Returns:
        The folder that holds the files under their names: the snapshot in the cache, or the chosen folder.

    Raises:
        SetupError: ``disk.full``, ``hub.corrupt``, ``hub.inconsistent``, or as in
            ``hub.access.translate_errors``.
    """
    disk_space.require([(plan.local_dir or cache.folder(), plan.download_bytes)])
    return fetch(plan.model, plan.files, local_dir=plan.local_dir, listener=listener)


def fetch(
    model: HubModel,
    files: Sequence[RemoteFile],
    *,
    local_dir: Path | None = None,
    listener: Listener = ignore,
) -> Path:
    """Download ``files``; those that exist already are skipped.

    Args:
        model: The repository at its commit.
        files: Files to download.
        local_dir: Folder to download to instead of the cache.
        listener: Receives the number of bytes over all files.

    Returns:
        The folder that holds the files under their names.

    Raises:
        SetupError: As ``download``.
    """
    root = local_dir if local_dir is not None else cache.snapshot(model.repo_id, model.commit)
    with translate_errors(model.repo_id, model.revision):
        missing = [file for file in files if not _is_downloaded(model, file, local_dir)]
        if missing:
            _fetch_all(model, missing, local_dir, listener)
        if local_dir is None and model.online:
            cache.write_ref(model)
    return root


def _is_downloaded(model: HubModel, file: RemoteFile, local_dir: Path | None) -> bool:
    slot = cache.slot(model, file, local_dir)
    if not slot.is_filled(file):
        return False
    if local_dir is None:
        return True
    # A local folder may hold any file; in the cache, contents are named by their hash.
    digest = _new_digest(file)
    with slot.pointer.open("rb") as stream:
        _update_digest(stream, digest)
    return digest.hexdigest() == file.etag


def _fetch_all(
    model: HubModel, files: Sequence[RemoteFile], local_dir: Path | None, listener: Listener
) -> None:
    total = sum(file.size_bytes or 0 for file in files)
    noun = files[0].name if len(files) == 1 else f"{len(files)} files"
    listener(Started(task=_TASK, label=f"downloading {noun} of {model.repo_id}", total=total, unit="bytes"))
    ticker = _Ticker(listener)
    stopped = threading.Event()
    source = Source(model, listener)

    def one(file: RemoteFile) -> None:
        slot = cache.slot(model, file, local_dir)
        kept = cache.slot(model, file) if local_dir is not None else None
        _fetch_one(source, file, slot, kept, ticker, Retries(listener, stopped), stopped)

    # Large files first: the small ones fill the gaps.
    ordered = sorted(files, key=lambda file: -(file.size_bytes or 0))
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="download") as pool:
        jobs = [pool.submit(one, file) for file in ordered]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    rate = ticker.received / max(ticker.seconds, 1e-6)
    listener(
        Finished(
            task=_TASK,
            note=f"{disk_space.human_size(total)} at {disk_space.human_size(rate)}/s",
        )
    )


def _fetch_one(
    source: Source,
    file: RemoteFile,
    slot: cache.Slot,
    kept: cache.Slot | None,
    ticker: _Ticker,
    retries: Retries,
    stopped: threading.Event,
) -> None:
    with _locked(slot.lock, file, ticker.listener):
        if (kept is None and slot.is_filled(file)) or slot.adopt_blob(file):
            ticker.add(file.size_bytes or 0, received=False)
            return
        slot.partial.parent.mkdir(parents=True, exist_ok=True)
        if kept is not None and kept.is_filled(file):
            shutil.copyfile(kept.pointer, slot.partial)
        # Bytes of an earlier run may be corrupt: restart the file once from the beginning.
        for _ in range(2):
            if _receive(source, file, slot.partial, ticker, retries, stopped) == file.etag:
                slot.publish()
                break
            ticker.add(-slot.partial.stat().st_size, received=False)
            slot.partial.unlink()
            source.give_up_xet(f"{file.name} does not match its hash")
        else:
            raise SetupError(
                "hub.corrupt",
                f"{file.name} did not match its hash in two downloads; it was not kept.",
                "Something in the network alters files: try another network, or unset HF_ENDPOINT.",
            )
    if kept is not None:
        slot.lock.unlink(missing_ok=True)


def _receive(
    source: Source,
    file: RemoteFile,
    partial: Path,
    ticker: _Ticker,
    retries: Retries,
    stopped: threading.Event,
) -> str:
    """Complete ``partial`` and return the hash of its content, or "" when it is too long."""
    size = file.size_bytes or 0
    with partial.open("a+b") as sink:
        sink.seek(0)
        digest = _new_digest(file)
        have = best = _update_digest(sink, digest)
        ticker.add(have, received=False)
        while have < size:
            try:
                with source.open(file, have) as pieces:
                    for piece in pieces:
                        if stopped.is_set():
                            raise _Stopped
                        sink.write(piece)
                        digest.update(piece)
                        have += len(piece)
                        ticker.add(len(piece))
                        if have > best:
                            best = have
                            retries.progressed()
                if have < size:
                    raise httpx2.RemoteProtocolError("the file ended early")
            except StartOver:
                sink.truncate(0)
                ticker.add(-have, received=False)
                digest, have = _new_digest(file), 0
            except Exception as error:  # noqa: BLE001 - wait_after raises what is not to be retried
                sink.flush()
                retries.wait_after(error)
        sink.flush()
        os.fsync(sink.fileno())
    return digest.hexdigest() if have == size else ""


def _new_digest(file: RemoteFile) -> _Digest:
    """Return the hash that names the content: SHA-256, or git's SHA-1 of a blob."""
    if file.sha256 is not None:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {file.size_bytes}\0".encode(), usedforsecurity=False)


def _update_digest(stream: BinaryIO, digest: _Digest) -> int:
    """Feed the rest of ``stream`` to ``digest``; return the number of bytes."""
    count = 0
    while data := stream.read(_READ_BYTES):
        digest.update(data)
        count += len(data)
    return count


@contextlib.contextmanager
def _locked(path: Path, file: RemoteFile, listener: Listener) -> Iterator[None]:
    """Hold the cache's lock on this content, which all programs using the cache respect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(path, timeout=1))
        except Timeout:
            listener(Notice(text=f"{file.name} is being downloaded by another program; waiting for it."))
            stack.enter_context(WeakFileLock(path))
        yield


class _Ticker:
    """Counts bytes over all files and threads, and reports to the listener periodically."""

    _INTERVAL_SECONDS = 0.1

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.received = 0
        self._done = 0
        self._lock = threading.Lock()
        self._began = self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def add(self, count: int, *, received: bool = True) -> None:
        with self._lock:
            self._done += count
            self.received += count if received else 0
            now = time.monotonic()
            if now - self._told >= self._INTERVAL_SECONDS:
                self._told = now
                self.listener(Advanced(task=_TASK, done=self._done))

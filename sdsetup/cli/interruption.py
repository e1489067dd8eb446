"""Answer Ctrl-C also while native code runs, such as a step on ONNX Runtime, whose end Python waits for."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sdsetup.cli import output

_PATIENCE_SECONDS = 1.0


@contextmanager
def answered() -> Iterator[None]:
    """Say within a second that Ctrl-C was heard, and let a second one end the process at once.

    Where Python runs, Ctrl-C raises KeyboardInterrupt as always. Outside of the main thread, or where Ctrl-C
    is ignored, nothing is changed.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    heard, woken = socket.socketpair()
    woken.setblocking(False)
    raised = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raised.set()
        signal.default_int_handler(number, frame)

    watcher = threading.Thread(target=_watch, args=(heard, raised), name="ctrl-c", daemon=True)
    watcher.start()
    woken_before = signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(woken_before)
        raised.set()
        woken.close()
        watcher.join()
        heard.close()


def _watch(heard: socket.socket, raised: threading.Event) -> None:
    """Wait for the numbers of signals that Python writes as they come, before any of its handlers runs."""
    said = False
    while number := heard.recv(1):
        if number[0] != signal.SIGINT or raised.wait(_PATIENCE_SECONDS):
            continue
        if said:
            # A terminal that takes nothing must not keep the process.
            farewell = threading.Thread(target=_take_leave, daemon=True)
            farewell.start()
            farewell.join(_PATIENCE_SECONDS)
            os._exit(130)
        output.say("Stopping as soon as what runs now is done. Ctrl-C again stops at once.")
        said = True


def _take_leave() -> None:
    output.settle()
    output.say("Stopped.")

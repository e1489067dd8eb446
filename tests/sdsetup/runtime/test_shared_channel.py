"""Two real processes with real shared memory between them."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from sdsetup.runtime.shared_channel import SharedChannel


def echo(connection: Connection) -> None:
    """Send everything back, arrays doubled; the main function of the other process."""
    channel = SharedChannel(connection=connection)
    while True:
        try:
            message = channel.recv()
        except EOFError:
            return
        arrays = {name: value * 2 for name, value in message.items() if isinstance(value, np.ndarray)}
        channel.send({**message, **arrays})


def started() -> tuple[SharedChannel, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=echo, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return SharedChannel(connection=ours), process


@contextmanager
def other_process() -> Iterator[SharedChannel]:
    channel, process = started()
    yield channel
    channel.close()
    process.join(20)
    assert process.exitcode == 0


def test_arrays_of_every_size_and_type_arrive_and_belong_to_the_receiver() -> None:
    random = np.random.default_rng(0)
    messages = [
        {"text": "no array", "number": 3},
        {"latents": random.normal(size=(2, 4, 64, 64)).astype(np.float32), "step": 1},
        {
            "half": random.normal(size=(3, 5)).astype(np.float16),
            "tokens": np.arange(77),
            "empty": np.zeros((0, 4)),
        },
        {name: np.full(5 + place, place, np.float32) for place, name in enumerate("abcd")},
        # Larger than the first block, so that both ends change to another.
        {"image": random.normal(size=(1, 3, 1024, 1024)).astype(np.float32)},
        {"scalar": np.float32(2), "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T},
    ]
    with other_process() as channel:
        answers = []
        for message in messages:
            channel.send(message)
            answers.append(channel.recv())
        for message, answer in zip(messages, answers, strict=True):
            assert answer.keys() == message.keys()
            for name, value in message.items():
                if isinstance(value, np.ndarray):
                    # Compared after later messages: nothing of them may have been written over these.
                    np.testing.assert_array_equal(answer[name], value * 2)
                    assert answer[name].dtype == value.dtype
                    answer[name][...] = 0
                else:
                    assert answer[name] == value


def test_the_other_end_closing_is_an_end_of_file() -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    channel = SharedChannel(connection=ours)
    theirs.close()
    with pytest.raises(EOFError):
        channel.recv()
    channel.close()


@pytest.mark.skipif(sys.platform != "linux", reason="knows where Linux keeps shared memory")
def test_shared_memory_that_is_gone_is_closed_too() -> None:
    with other_process() as channel:
        channel.send({"array": np.ones(1000)})
        assert channel.recv()["array"].sum() == 2000
        for block in (channel._sent, channel._received):
            assert block is not None
            (Path("/dev/shm") / block.name.lstrip("/")).unlink()  # noqa: S108


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows frees shared memory with the last process that has it"
)
def test_a_killed_process_leaves_no_shared_memory_and_no_warning() -> None:
    script = """
import os
import numpy as np
from tests.sdsetup.runtime.test_shared_channel import started

if __name__ == "__main__":
    channel, process = started()
    channel.send({"array": np.ones(1000)})
    assert channel.recv()["array"].sum() == 2000
    names = [block.name for block in (channel._sent, channel._received)]
    process.kill()
    process.join()
    channel.close()
    print(*(os.path.exists("/dev/shm/" + name.lstrip("/")) for name in names))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "False"]
    assert done.stderr == ""

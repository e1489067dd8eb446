"""Decode in a process whose sessions share an arena of limited size: memory runs out there for real.

python -m tests.sdsetup.runtime.limited_memory PACKAGE MIB LATENTS PIXELS [--whole]
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conversions.events import Event, Finished, Notice, Started, Stopped
from conversions.providers.devices import CPU
from sdsetup.errors import SetupError
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner

LIMITED = replace(CPU, provider=replace(CPU.provider, session_config={"session.use_env_allocators": "1"}))


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What became of latents.

    Attributes:
        pixels: The images; None where decoding failed.
        notices: What was said.
        message: Of the error, and its hint; empty where there was none.
        tasks: Tasks that began and did not end.
    """

    pixels: NDArray[np.uint8] | None
    notices: tuple[str, ...]
    message: str
    tasks: tuple[str, ...]


def decode(folder: Path, mebibytes: int, latents: NDArray[Any], *, may_tile: bool = True) -> Decoded:
    """Decode latents with a package within so much memory for activations."""
    given, pixels = folder.parent / "latents.npy", folder.parent / "pixels.npy"
    np.save(given, latents)
    options = [] if may_tile else ["--whole"]
    arguments = [str(folder), str(mebibytes), str(given), str(pixels), *options]
    said = subprocess.run(
        [sys.executable, "-m", __name__, *arguments], check=True, capture_output=True, text=True, timeout=300
    )
    told = json.loads(said.stdout.splitlines()[-1])
    return Decoded(
        pixels=None if told["message"] else np.load(pixels),
        notices=tuple(told["notices"]),
        message=told["message"],
        tasks=tuple(told["tasks"]),
    )


def _main(folder: str, mebibytes: str, given: str, pixels: str, *options: str) -> None:
    import onnxruntime

    arena = onnxruntime.OrtArenaCfg({"max_mem": int(mebibytes) * 2**20, "arena_extend_strategy": 1})
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, arena)
    notices: list[str] = []
    running: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.text)
        elif isinstance(event, Started):
            running.append(event.task)
        elif isinstance(event, (Finished, Stopped)):
            running.remove(event.task)

    package = open_for_images(Path(folder))
    may_tile = "--whole" not in options
    runner = LocalRunner(package=package, device=LIMITED, may_tile=may_tile, listener=listen)
    message = ""
    try:
        np.save(pixels, Pipeline(package=package, runner=runner, listener=listen).decode(np.load(given)))
    except SetupError as error:
        message = f"{error.message} {error.hint}"
    sys.stdout.write(json.dumps({"notices": notices, "message": message, "tasks": running}))


if __name__ == "__main__":
    _main(*sys.argv[1:])

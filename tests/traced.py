"""Graphs of tiny checkpoints, traced once for all tests of a run."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from conversions import graphs
from conversions.checkpoint.folder import Checkpoint


def trace_once(checkpoint: Checkpoint, folder: Path) -> None:
    """Trace the graphs of a checkpoint that a folder lacks, in this process, which keeps torch imported."""
    # Another worker may be tracing some of them: take the others first.
    for wait_seconds in (0, -1):
        for submodel in checkpoint.submodels:
            kind, config = submodel.kind, checkpoint.config_of(submodel)
            try:
                lock = folder.with_name(f"{graphs.fingerprint(kind, config)}.lock")
                with FileLock(lock, timeout=wait_seconds):
                    if graphs.locate(kind, config, folder) == "to trace":
                        graphs.keep(graphs.trace_and_pack(kind, config), kind, config, folder)
            except Timeout:
                continue

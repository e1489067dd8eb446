"""``python -m conversions.graphs.build``: trace every shipped architecture and store its graph."""

from __future__ import annotations

import logging
import sys

from conversions import graphs
from conversions.family import all_families
from conversions.isolated_process import isolated_process

logger = logging.getLogger(__name__)


def build() -> int:
    """Build all shipped graphs anew and remove those that no architecture asks for."""
    made = set()
    with isolated_process("tracing", workers=2) as processes:
        traces = [
            (shipped, processes.submit(graphs.trace_and_pack, shipped.kind, shipped.config))
            for family in all_families()
            for shipped in family.shipped
        ]
        for shipped, trace in traces:
            path = graphs.keep(trace.result(), shipped.kind, shipped.config, graphs.SHIPPED_FOLDER)
            made.add(path)
            logger.info(
                "%s, %s: %s, %d bytes", shipped.label, shipped.kind.id, path.name, path.stat().st_size
            )
    for path in graphs.SHIPPED_FOLDER.iterdir():
        if path not in made:
            path.unlink()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(build())

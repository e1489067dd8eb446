"""Run alone, in a process of its own: import modules and print one line of JSON for each.

``imports_worker.py MODULE[:FUNCTION()] ...``; a function is called. A module that crashes ends this process
and nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings


def main(names: list[str]) -> None:
    """Import each and say what happened."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    warnings.simplefilter("ignore")
    for name in names:
        module, _, attribute = name.partition(":")
        error = ""
        try:
            found = importlib.import_module(module)
            if attribute:
                getattr(found, attribute.removesuffix("()"))()
        except BaseException as problem:  # noqa: BLE001 - whatever stops the import is what is asked for
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"
        sys.stdout.write(json.dumps([name, error]) + "\n")
        sys.stdout.flush()
    # Libraries' threads must not get a chance to hang after the answers were given.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])

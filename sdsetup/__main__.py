"""``python -m sdsetup``: works on a bare Python, before anything is installed."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; without its packages, say how to get them."""
    from sdsetup.cli.app import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())

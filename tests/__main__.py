"""``python -m tests [pytest's arguments]``: sets up what the tests need, then runs them.

Standard library only until the environment exists.
"""

from __future__ import annotations

import sys

from sdsetup.bootstrap import console, environment_maker, handover, installer, places
from sdsetup.errors import SetupError


def main(arguments: list[str]) -> int:
    """Run pytest in the project's environment and return its exit status."""
    try:
        source = places.checkout()
        if source is None:
            raise SetupError("tests.checkout", "The tests run from a checkout of the project only.")
        environment = source / ".venv"
        flavour = installer.flavour_for(sys.platform)
        environment_maker.prepare(environment, environment_maker.wanted_here(flavour, groups=("dev",)))
    except SetupError as error:
        console.complain(error)
        return 1
    except KeyboardInterrupt:
        console.say("stopped by Ctrl-C; run the same command again to go on.")
        return 130
    return handover.go_on(places.python_of(environment), ["-m", "pytest", "-n", "2", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m tests [pytest's arguments]``: sets up what the tests need, then runs them.

Standard library only until the environment exists.
"""

from __future__ import annotations

import sys

from sdsetup import bare_console, bootstrap, installer
from sdsetup.errors import SetupError


def main(arguments: list[str]) -> int:
    """Run pytest in the project's environment and return its exit status."""
    try:
        source = bootstrap.checkout()
        if source is None:
            raise SetupError("tests.checkout", "The tests run from a checkout of the project only.")
        environment = source / ".venv"
        flavour = installer.flavour_for(sys.platform)
        bootstrap.prepare(environment, bootstrap.wanted_here(flavour, groups=("dev",)))
    except SetupError as error:
        bare_console.complain(error)
        return 1
    except KeyboardInterrupt:
        bare_console.say("stopped by Ctrl-C; run the same command again to go on.")
        return 130
    return bootstrap.go_on(bootstrap.python_of(environment), ["-m", "pytest", "-n", "2", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A person who has a Python and nothing else: an empty home, none of pip's settings, and a cache."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.packaging.building import ROOT

# How the index is reached from here, and nothing that says what is installed.
_KEPT = ("PIP_CERT", "SSL_CERT_FILE", "HTTPS_PROXY", "LANG", "TMPDIR")


def base_python() -> str:
    """The Python below this environment, which has no packages of the project's."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@dataclass(frozen=True, kw_only=True)
class Newcomer:
    """Someone whose home is empty.

    Attributes:
        home: The home, made when it is not there; what is started runs in it.
        downloads: pip's cache.
        wheel: The wheel of the project that install.sh takes; PyPI's would be another.
        more: Environment variables besides.
    """

    home: Path
    downloads: Path
    wheel: Path
    more: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """Where install.sh puts the environment."""
        return self.home / ".local" / "share" / "sdsetup"

    @property
    def command(self) -> Path:
        """The command, as install.sh leaves it."""
        return self.home / ".local" / "bin" / "sdsetup"

    def variables(self) -> dict[str, str]:
        """The environment variables of what is started."""
        self.home.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_CACHE_DIR": str(self.downloads),
            "SDSETUP_PYTHON": base_python(),
            "SDSETUP_FROM": str(self.wheel),
            **self.more,
        }

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a program in a session of its own, so that all of it can be ended."""
        return subprocess.Popen(
            [str(argument) for argument in arguments], cwd=self.home, env=self.variables(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str | Path) -> str:
        """Run a program to its good end, and return what it said."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.start(*arguments) as process:
            said, _ = process.communicate()
        assert process.returncode == 0, said
        return said

    def install(self, *options: str) -> str:
        """Run install.sh to the demo's image."""
        return self.run("sh", ROOT / "install.sh", "--yes", *options)

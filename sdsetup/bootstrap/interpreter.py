"""What a Python says of itself, and whether sdsetup's packages exist for it.

Standard library only.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sdsetup.bootstrap import child_environment


@dataclass(frozen=True, kw_only=True)
class Look:
    """What an environment's Python says of itself; ``version`` is None when it does not start."""

    version: tuple[int, int] | None = None
    site: Path | None = None
    bits: int = 0
    implementation: str = ""
    free_threaded: bool = False

    @property
    def fits(self) -> bool:
        """Whether the packages exist for it."""
        return self.fault == ""

    @property
    def fault(self) -> str:
        """Why it cannot be used, in words; empty when it can."""
        if self.version is None:
            return "its Python does not start"
        written = f"{self.implementation} {'.'.join(map(str, self.version))}"
        if not (3, 11) <= self.version < (3, 14):
            return f"its Python is {written}, outside 3.11 to 3.13"
        if self.implementation != "CPython":
            return f"its Python is {written}, not CPython"
        if self.free_threaded:
            return f"its Python is the free-threaded {written}"
        return "" if self.bits == 64 else f"its Python is a {self.bits}-bit one"


def look_at(python: Path) -> Look:
    """Start a Python and ask what it is."""
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", _ASK],
            env=child_environment.for_python(), capture_output=True, encoding="utf-8", errors="replace",
            timeout=60, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        version, site, bits, implementation, free_threaded = json.loads(answer.stdout.splitlines()[-1])
        return Look(
            version=(int(version[0]), int(version[1])),
            site=Path(site),
            bits=int(bits),
            implementation=str(implementation),
            free_threaded=bool(free_threaded),
        )
    except (OSError, ValueError, IndexError, TypeError, subprocess.SubprocessError):
        return Look()


# In a syntax that Python 2 knows too: whatever is there is asked.
_ASK = (
    "import json, platform, struct, sys, sysconfig\n"
    "print(json.dumps([sys.version_info[:2], sysconfig.get_path('purelib'), struct.calcsize('P') * 8,"
    " platform.python_implementation(), bool(sysconfig.get_config_var('Py_GIL_DISABLED'))]))\n"
)

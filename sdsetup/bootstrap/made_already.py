"""What an environment that is there says of the package and the image: whether they were made already.

Standard library only.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdsetup.bootstrap import handover, places

_LIMIT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Made:
    """What an earlier ``install`` has finished.

    Attributes:
        package: The package; None where there is none, or nobody could say.
        image: Its first image; None where there is none, or nobody could say.
    """

    package: Path | None = None
    image: Path | None = None


NOTHING = Made()


def read(environment: Path, arguments: Sequence[str]) -> Made:
    """Let the command line in an environment say what it finds.

    Args:
        environment: The environment's folder.
        arguments: What follows the program's name, ``install`` included.
    """
    argv = [str(places.python_of(environment)), "-m", "sdsetup", *arguments, "--dry-run", "--json"]
    try:
        answer = subprocess.run(
            argv, env=handover.for_prepared(environment), capture_output=True, encoding="utf-8",
            errors="replace", timeout=_LIMIT_SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        document = json.loads(answer.stdout)
        package, image = (Path(document[name]) if document[name] else None for name in ("package", "image"))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return NOTHING  # not whole: then the plan says what will be there
    return Made(package=package, image=image)

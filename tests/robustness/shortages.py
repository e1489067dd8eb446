"""Two commands at once, and disks that fill: real processes under real limits."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
from functools import partial

from PIL import Image

from tests.hub_server.client import Done
from tests.hub_server.kills import fingerprint
from tests.robustness.checkpoints import demand_whole
from tests.robustness.materials import Materials, clear
from tests.robustness.search import Figures
from tests.robustness.user import LawBrokenError, User, judge


def at_once(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Start a command twice at the same moment, or nearly: convert into one folder, generate one name."""
    figures = Figures(attack="two at once: convert, generate")
    moments = random.Random(seed)
    source, toy = materials.checkpoint("stable-diffusion"), materials.toy()
    undisturbed = fingerprint(materials.package("stable-diffusion"))
    with materials.user("at-once") as user:
        package, image = user.home / "package", user.home / "image.png"
        commands = (
            ("convert", str(source), "--target", "cpu", "--no-verify", "-o", str(package)),
            ("generate", str(toy), "a horse", "--steps", "2", "--provider", "cpu", "-o", str(image)),
        )
        while time.monotonic() < until and figures.cases < most:
            command = commands[figures.cases % 2]
            clear([*user.home.glob("*package*"), *user.home.glob("*.png")])
            processes = []
            for _ in range(2):
                processes.append(user.start(*command))
                time.sleep(moments.choice((0, 0, 0.05, 0.3)))
            try:
                ends = [_finished(process) for process in processes]
                for done in ends:
                    judge(command[0], done)
                    figures.count("done" if done.code == 0 else "explained")
                if all(done.code for done in ends):
                    raise LawBrokenError(f"neither finished: {ends[0].stderr[-500:]} {ends[1].stderr[-500:]}")
                if command[0] == "convert" and fingerprint(package) != undisturbed:
                    raise LawBrokenError("the package differs from that of one run alone")
                images_there = list(user.home.glob("*.png"))
                for path in images_there:
                    Image.open(path).load()
                if command[0] == "generate" and len(images_there) != sum(done.code == 0 for done in ends):
                    raise LawBrokenError(f"{len(images_there)} images of {ends}")
            except (LawBrokenError, OSError) as error:
                figures.faults.append(f"turn {figures.cases}: {error}")
            figures.cases += 1
    return figures


def full_disk(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Let the system refuse to write on at a random size; what was there stays, the next run completes."""
    figures = Figures(attack="a disk that fills: convert, generate")
    sizes = random.Random(seed)
    source, toy = materials.checkpoint("stable-diffusion"), materials.toy()
    undisturbed = fingerprint(materials.package("stable-diffusion"))
    with materials.user("full-disk") as user:
        package, image = user.home / "package", user.home / "image.png"
        commands = (
            ("convert", str(source), "--target", "cpu", "--no-verify", "-o", str(package)),
            ("generate", str(toy), "a horse", "--steps", "2", "--provider", "cpu", "-o", str(image)),
        )
        while time.monotonic() < until and figures.cases < most:
            command, output = commands[figures.cases % 2], (package, image)[figures.cases % 2]
            clear([*user.home.glob("*package*"), *user.home.glob("*.png")])
            try:
                done = _limited(user, command, int(2 ** sizes.uniform(0, 21)))
                judge(command[0], done)
                if (done.code == 0) != output.exists():
                    raise LawBrokenError(f"status {done.code}, and {output.name}: {output.exists()}")
                figures.count("done" if done.code == 0 else "explained")
                if done.code and (done := user.run(*command)).code:
                    raise LawBrokenError(f"the next run failed: {done.stderr[-500:]}")
                if output == package:
                    demand_whole(package)
                    if fingerprint(package) != undisturbed:
                        raise LawBrokenError("the package differs from that of an undisturbed run")
            except (LawBrokenError, OSError) as error:
                figures.faults.append(f"turn {figures.cases}: {error}")
            figures.cases += 1
    figures.slowest_seconds = user.slowest_seconds
    return figures


def _finished(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=300)
    return Done(code=process.returncode, stdout=out, stderr=err)


def _limited(user: User, command: tuple[str, ...], size_bytes: int) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "sdsetup", *command],
        env=user.environment(PYTHONDONTWRITEBYTECODE="1"),
        cwd=user.home,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size_bytes, size_bytes)),
    )
    return Done(code=done.returncode, stdout=done.stdout, stderr=done.stderr)

"""SIGKILL at random moments, and what the next run makes of what is left."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from PIL import Image

from tests.hub_server import Fault, HubServer, Repo, faults
from tests.hub_server.checkpoint import NEEDED, checkpoint_files
from tests.hub_server.kills import fingerprint
from tests.robustness.checkpoints import demand_whole
from tests.robustness.materials import Materials, clear
from tests.robustness.search import Figures
from tests.robustness.user import LawBrokenError, User, judge, kill_with_children, list_files
from tests.robustness.warm_start import WarmStart

_LONGEST_SECONDS = 600.0
_COLD = 1 / 8


def convert(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Kill conversions; the next run must make the package of an undisturbed one, byte for byte.

    Every third replaces a package that is there, and that must never be torn.
    """
    figures = Figures(attack="SIGKILL: convert")
    moments = random.Random(seed)
    source = materials.checkpoint("stable-diffusion")
    materials.package("stable-diffusion")  # its graphs are traced
    with materials.user("kill-convert") as user, ExitStack() as opened:
        output = user.home / "package"
        command = ["convert", str(source), "--target", "cpu", "--no-verify", "-o", str(output), "--overwrite"]
        user.run_cold(*command)
        undisturbed = fingerprint(output)
        killed = opened.enter_context(_killing(user, command))

        def turn() -> None:
            if figures.cases % 3:
                clear([output])
            before = output.exists()
            figures.count("killed" if killed(moments) else "over before")
            if before and not output.exists():
                hidden = output.with_name(".package.old")
                if not hidden.exists():
                    raise LawBrokenError("the package that was there is gone")
            if output.exists():
                demand_whole(output)
            _next_run(user, command)
            if fingerprint(output) != undisturbed:
                raise LawBrokenError("the package differs from that of an undisturbed run")
            left = [path.name for path in user.home.glob(".package*")]
            if left:
                raise LawBrokenError(f"left behind after a finished run: {left}")

        _turns(figures, turn, until, most)
    return figures


def generate(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Kill generations; no image is torn or lost, and the next run makes one."""
    figures = Figures(attack="SIGKILL: generate")
    moments = random.Random(seed)
    package = materials.toy()
    with materials.user("kill-generate") as user, ExitStack() as opened:
        images = user.home / "images"
        command = ["generate", str(package), "a horse", "--steps", "5", "--provider", "cpu", "--seed", "3"]
        command += ["-o", str(images)]
        killed = opened.enter_context(_killing(user, command))

        def turn() -> None:
            before = list_files(images)
            figures.count("killed" if killed(moments) else "over before")
            if lost := [name for name, entry in before.items() if list_files(images).get(name) != entry]:
                raise LawBrokenError(f"images that were there changed: {lost}")
            _next_run(user, command)
            for path in images.glob("*.png"):
                with Image.open(path) as image:
                    image.load()
            if len(list(images.glob("*.png"))) <= len([name for name in before if name.endswith(".png")]):
                raise LawBrokenError("the next run wrote no image")
            if len(before) > 50:
                clear([images])
                _next_run(user, command)

        _turns(figures, turn, until, most)
    return figures


def download(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Kill downloads over a slow line; the next run makes them whole."""
    figures = Figures(attack="SIGKILL: download")
    moments = random.Random(seed)
    files = checkpoint_files(unet_bytes=400_000)
    with (
        HubServer() as hub,
        materials.user("kill-download", endpoint=hub.endpoint) as user,
        ExitStack() as opened,
    ):
        hub.add(Repo(repo_id="acme/tiny", files=files))
        hub.faults.append(Fault(where="GET /cdn/*", action=faults.drip(2**14, 0.01, 10**9), times=-1))
        command = ["download", "acme/tiny"]
        killed = opened.enter_context(_killing(user, command))

        def turn() -> None:
            clear([user.home / "hf"])
            figures.count("killed" if killed(moments) else "over before")
            _next_run(user, command)
            folder = user.storage("acme/tiny") / "snapshots"
            for name in NEEDED:
                (found,) = folder.glob(f"*/{name}")
                if found.read_bytes() != files[name]:
                    raise LawBrokenError(f"{name} is not whole")

        _turns(figures, turn, until, most)
    return figures


def _turns(figures: Figures, turn: Callable[[], None], until: float, most: int) -> None:
    while time.monotonic() < until and figures.cases < most:
        began = time.monotonic()
        try:
            turn()
        except (LawBrokenError, ValueError, OSError) as error:
            figures.faults.append(f"turn {figures.cases}: {error}")
        figures.cases += 1
        figures.slowest_seconds = max(figures.slowest_seconds, time.monotonic() - began)


@contextmanager
def _killing(user: User, command: list[str]) -> Iterator[Callable[[random.Random], bool]]:
    """Give what starts the command, kills it at a random moment and tells whether it was still running.

    One in eight begins with a new Python, whose imports take most of its time; the others are past them.
    """
    cold = _seconds_of(lambda: judge(command[0], user.run_cold(*command)))
    with WarmStart(user, command) as warm_start:
        warm_start.killed_after(_LONGEST_SECONDS)
        warm = _seconds_of(lambda: warm_start.killed_after(_LONGEST_SECONDS))

        def killed(moments: random.Random) -> bool:
            if moments.random() < _COLD:
                return _killed_cold(user, command, moments.uniform(0.3, cold))
            return warm_start.killed_after(moments.uniform(0, warm))

        yield killed


def _seconds_of(run: Callable[[], object]) -> float:
    """Return how long something takes that is not disturbed."""
    began = time.monotonic()
    run()
    return time.monotonic() - began


def _killed_cold(user: User, command: list[str], moment_seconds: float) -> bool:
    process = user.start(*command)
    try:
        process.communicate(timeout=moment_seconds)
    except subprocess.TimeoutExpired:
        kill_with_children(process)
        process.communicate()
        return True
    return False


def _next_run(user: User, command: list[str]) -> None:
    done = user.run(*command)
    if done.code:
        raise LawBrokenError(f"the next run failed: {done.stderr[-800:]}")

"""``python -m tests.robustness [--minutes N] [--seed N] [--write]``: attack for as long as asked."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from tests.checkpoints import VARIANTS
from tests.robustness import arguments, checkpoints, hub_answers, kills, packages, shortages
from tests.robustness.materials import Materials
from tests.robustness.search import Figures

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"

# Attacks with their share of the time; what is cheap finds the most.
ATTACKS: tuple[tuple[float, Callable[..., Figures]], ...] = (
    (0.30, checkpoints.plan),
    (0.10, checkpoints.convert),
    (0.06, checkpoints.verify),
    (0.10, packages.inspect),
    (0.12, packages.generate),
    (0.08, packages.verify),
    (0.04, arguments.every_option),
    (0.06, hub_answers.answers),
    (0.08, kills.convert),
    (0.04, kills.generate),
    (0.02, kills.download),
    (0.02, shortages.at_once),
    (0.02, shortages.full_disk),
)
# Attacks that need packages, of every tiny checkpoint or of one: a plan alone traces graphs, too.
NEED_ALL = {
    *(checkpoints.plan, checkpoints.convert, checkpoints.verify),
    *(packages.inspect, packages.generate, packages.verify),
}
NEED_ONE = {kills.convert, shortages.at_once, shortages.full_disk}


def main(arguments: list[str]) -> int:
    """Attack; return 1 where a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="keep checkpoints, graphs and packages there for next time")
    parser.add_argument("--only", help="a module or module.attack, such as packages or kills.convert")
    parser.add_argument(
        "--checkpoints",
        type=lambda names: tuple(names.split(",")),
        default=tuple(VARIANTS),
        help="names of the tiny checkpoints to attack, with commas between them; all by default",
    )
    parser.add_argument("--write", action="store_true", help=f"write the figures into {PAGE.name}")
    options = parser.parse_args(arguments)
    if unknown := set(options.checkpoints) - set(VARIANTS):
        parser.error(
            f"no such tiny checkpoint: {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}"
        )
    began = time.monotonic()
    chosen = [(share, attack) for share, attack in ATTACKS if name_of(attack).startswith(options.only or "")]
    found = []
    with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
        materials = Materials(
            work=Path(folder) / "work",
            kept=options.keep or Path(folder) / "kept",
            variants=options.checkpoints,
        )
        prepare(materials, [attack for _, attack in chosen])
        for share, attack in chosen:
            seconds = options.minutes * 60 * share / sum(part for part, _ in chosen)
            found.append(attack(materials, until=time.monotonic() + seconds, seed=options.seed))
            print(table(found[-1:]), flush=True)  # noqa: T201
    command = "python -m tests.robustness " + " ".join(
        word for word in arguments if word != "--write" and "/" not in word and word != "--keep"
    )
    text = (
        f"`{command.strip()}`, {datetime.now(UTC):%Y-%m-%d}, {(time.monotonic() - began) / 60:.0f} minutes, "
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}:\n\n{table(found)}"
    )
    print(text)  # noqa: T201
    if options.write:
        write(text)
    return int(any(figures.faults for figures in found))


def prepare(materials: Materials, attacks: Iterable[Callable[..., Figures]]) -> None:
    """Make what the attacks need, before their time begins.

    Tracing the graphs of every tiny checkpoint takes minutes the first time.
    """
    wanted = set(attacks)
    materials.toy()
    if wanted & NEED_ALL:
        for variant in materials.variants:
            materials.package(variant)
    if wanted & NEED_ONE:
        materials.package("stable-diffusion")


def name_of(attack: Callable[..., Figures]) -> str:
    """Return an attack's name: its module's and its own."""
    return f"{attack.__module__.rpartition('.')[2]}.{attack.__name__}"


def table(found: list[Figures]) -> str:
    """Write figures as a table of Markdown."""
    lines = ["| attack | cases | ended | slowest | faults |", "|---|---|---|---|---|"]
    for each in found:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(each.ends.items()))
        lines.append(
            f"| {each.attack} | {each.cases:,} | {ends} | {each.slowest_seconds:.0f} s | {len(each.faults)} |"
        )
    return "\n".join(lines) + "\n"


def write(text: str) -> None:
    """Put the figures into the page."""
    page = PAGE.read_text("utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: f"{BEGIN}\n{text}{END}", page), "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

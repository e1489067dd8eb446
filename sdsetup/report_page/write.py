"""Write the report's page: sections of escaped text in one file that loads nothing."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from sdsetup import new_file
from sdsetup.disk_space import human_size
from sdsetup.report_page import facts, memory_chart
from sdsetup.report_page.facts import without_person
from sdsetup.report_page.record import RunRecord

if TYPE_CHECKING:
    from conversions.plan import ConversionPlan
    from conversions.verification.parity import ParityReport

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")

_AMOUNT = re.compile(r"–|equal|interrupted|[\d.]\S*( [a-zA-Z]{1,3})?")

_REFERENCES = {
    "pytorch": "PyTorch in float32, on the checkpoint's own weights",
    "float32_graph": "a float32 evaluation of the same graphs on the checkpoint's own weights; "
    "PyTorch was not asked",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of a run, as far as it came.

    Attributes:
        command: The verb: ``"convert"`` or ``"install"``.
        model: What was converted, as it was named.
        package: The package's folder; None where none was published.
        plan: What the conversion was to do; None where nothing was converted.
        report: What verification found; None where nothing was verified.
        image: The first image; None where there is none.
        device: What made the image; empty where it was there before.
        problem: Why the run failed; empty where it did not.
    """

    command: str
    model: str
    package: Path | None = None
    plan: ConversionPlan | None = None
    report: ParityReport | None = None
    image: Path | None = None
    device: str = ""
    problem: str = ""


def write(path: Path, outcome: Outcome, record: RunRecord) -> None:
    """Write the report, whole or not at all; an older one is replaced.

    Args:
        path: The HTML file.
        outcome: What came out.
        record: What was recorded on the way.

    Raises:
        OSError: The file cannot be written.
    """
    new_file.write(path, page(outcome, record).encode("utf-8"), overwrite=True)


def page(outcome: Outcome, record: RunRecord) -> str:
    """Return the report as HTML."""
    verdict = "failed" if outcome.problem else "done"
    title = f"sdsetup {outcome.command} {_name(outcome.model)}: {verdict}"
    sections = (
        _head(outcome, record),
        _verdicts(outcome),
        _images(outcome),
        _plan(outcome, record),
        _parity(outcome),
        _placement(outcome),
        _chart(outcome, record),
        _tasks(record),
        _machine(),
        _notices(record),
    )
    return _PAGE.substitute(
        title=escape(title),
        style=Path(__file__).with_name("style.css").read_text(encoding="utf-8"),
        body="\n".join(line for section in sections for line in section),
    )


def _name(model: str) -> str:
    return Path(model).name if Path(model).is_absolute() else without_person(model)


def _head(outcome: Outcome, record: RunRecord) -> Iterator[str]:
    yield f"<h1>{escape(_name(outcome.model))}</h1>"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.started))
    plan = outcome.plan
    what = "" if plan is None else f", {plan.family}, {plan.options.precision} for {plan.options.target}"
    said = f"sdsetup {outcome.command}, {when}, {record.seconds:.0f} s{what}"
    yield f'<p class="soft">{escape(said)}</p>'


def _verdicts(outcome: Outcome) -> Iterator[str]:
    def item(kind: str, word: str, text: str) -> str:
        return f'<li class="{kind}"><span class="word">{escape(word)}</span> {escape(text)}</li>'

    yield '<ul class="verdicts" aria-label="Verdicts">'
    if outcome.problem:
        yield item("bad", "Failed.", without_person(outcome.problem))
    if outcome.package is not None:
        yield item("good", "Converted.", f"The package: {without_person(str(outcome.package))}")
    report = outcome.report
    if report is None:
        yield item("open", "Not verified", "in this run.")
    else:
        with_what = f" Compared with {_REFERENCES[report.reference]}." if report.reference else ""
        if report.passed:
            count = f"all {len(report.submodels)} submodels, on {report.device}."
            yield item("good", "Verified:", count + with_what)
        else:
            yield item("bad", "Not the same model:", "; ".join(report.all_problems) + with_what)
    if outcome.image is not None and not outcome.problem:
        made = f"{outcome.device}." if outcome.device else "it was made in an earlier run."
        yield item("good", "First image passed its check:", made)
    yield "</ul>"


def _images(outcome: Outcome) -> Iterator[str]:
    if outcome.image is None or not outcome.image.is_file():
        return
    from sdsetup.imaging import image_file

    prompt = ""
    with suppress(Exception):  # the page is worth having without it
        prompt = image_file.read_metadata(outcome.image).request.prompt
    data = base64.b64encode(outcome.image.read_bytes()).decode("ascii")
    small = ' class="small"' if outcome.image.stat().st_size < 50_000 else ""
    words = prompt or outcome.image.stem
    yield "<h2>Image</h2>"
    yield '<div class="images"><figure>'
    yield f'<img{small} src="data:image/png;base64,{data}" alt="Image made from the prompt: {escape(words)}">'
    yield f"<figcaption>{escape(words)}</figcaption></figure></div>"


def _plan(outcome: Outcome, record: RunRecord) -> Iterator[str]:
    plan = outcome.plan
    if plan is None:
        return
    nothing = "–"
    written = linked = besides = nothing
    if outcome.package is not None:
        from conversions.package.layout import open_package

        package = open_package(outcome.package)
        sizes = {name: file.size_bytes for name, file in package.files.items()}
        # Two submodels may link to one file of the checkpoint, as the halves of an autoencoder do.
        links = {entry["file"]: name for name, entry in package.manifest.get("linked", {}).items()}
        weights = {name for each in package.submodels for name in package.weight_files(each.name)}
        own = set(sizes) - set(package.manifest.get("linked", {}))
        written = human_size(sum(sizes[name] for name in own & weights))
        linked = human_size(sum(sizes[name] for name in links.values()))
        besides = human_size(sum(sizes[name] for name in own - weights))
    yield "<h2>Plan and what happened</h2>"
    yield from _table(
        "Plan and what happened",
        ("", "planned", "happened"),
        (
            ("weights read from the checkpoint", human_size(plan.source_bytes), nothing),
            ("weights written", human_size(plan.copied_bytes), written),
            ("weights linked", human_size(plan.package_bytes - plan.copied_bytes), linked),
            ("graphs and small files", nothing, besides),
            ("peak memory", human_size(_foretold(outcome)), human_size(record.peak_bytes)),
        ),
    )
    yield (
        '<p class="soft">The memory is that of this process and its children, images included; pages of '
        "weights that several of them map count more than once.</p>"
    )


def _parity(outcome: Outcome) -> Iterator[str]:
    report = outcome.report
    if report is None or not any(each.parity for each in report.submodels):
        return
    from conversions.package.layout import open_package
    from conversions.package.needs import device_bytes, weight_bytes

    package = None if outcome.package is None else open_package(outcome.package)
    yield "<h2>Parity</h2>"
    rows = []
    for each in report.submodels:
        found = each.parity
        numbers = (
            ("–",) * 4
            if found is None
            else (
                "equal" if found.psnr_db == float("inf") else f"{found.psnr_db:.1f} dB",
                f"{found.gate_db:.0f} dB",
                f"{found.max_abs_error:.2g}",
                f"{found.cosine:.6f}",
            )
        )
        result = "failed" if each.problems else "ok"
        cost = "–" if each.quantization_db is None else f"{each.quantization_db:.1f} dB"
        needed = None if package is None else device_bytes(package, each.submodel)
        size = "–" if package is None else human_size(weight_bytes(package, each.submodel))
        memory = "–" if needed is None else human_size(needed)
        rows.append((each.submodel, result, *numbers, size, memory, cost))
    # The result first: a narrow screen shows the first columns.
    headings = ["submodel", "result", "PSNR", "needed", "largest error", "cosine", "size", "VRAM"]
    if any(row[-1] != "–" for row in rows):
        headings.append("quantisation")
    kept = [row[: len(headings)] for row in rows]
    yield from _table("Parity, size and VRAM of every submodel", headings, kept)
    if package is not None and "memory" in package.manifest:
        native = package.recipe.native
        yield f'<p class="soft">VRAM is a forecast for one image of {native.width}x{native.height}.</p>'


def _placement(outcome: Outcome) -> Iterator[str]:
    report = outcome.report
    if report is None or not report.submodels:
        return
    yield "<h2>Placement</h2>"
    rows = []
    for each in report.submodels:
        nodes = ", ".join(
            f"{count} on {name.removesuffix('ExecutionProvider')}"
            for name, count in each.placement.nodes.items()
        )
        share = each.placement.time_share
        time_there = "–" if share is None else f"{100 * share:.1f}%"
        rows.append((each.submodel, nodes, time_there, f"{each.seconds:.2f} s"))
    yield from _table("Where nodes ran", ("submodel", "nodes", "time there", "one run"), rows)


def _foretold(outcome: Outcome) -> int:
    plan = outcome.plan
    if plan is None:
        return 0
    return max(plan.ram_bytes, plan.check_ram_bytes if outcome.report is not None else 0)


def _chart(outcome: Outcome, record: RunRecord) -> Iterator[str]:
    planned = _foretold(outcome)
    shapes = (memory_chart.DESK, memory_chart.PHONE)
    drawn = [memory_chart.draw(record, planned, shape) for shape in shapes]
    if all(drawn):
        yield "<h2>Memory and time</h2>"
        yield from ('<div class="chart">', *drawn, "</div>")


def _tasks(record: RunRecord) -> Iterator[str]:
    if not record.tasks:
        return
    yield "<h2>Tasks</h2>"
    shown = [task for task in record.tasks if task.ended is None or not memory_chart.is_short(task, record)]
    rows = [
        (
            task.label,
            f"{task.began:.1f} s",
            "interrupted" if task.ended is None else f"{task.ended - task.began:.1f} s",
            task.note or "–",
        )
        for task in shown
    ]
    headings = ["task", "began", "took", "result"]
    if not any(task.note for task in shown):
        headings.pop()
    if rows:
        yield from _table("Tasks with their times", headings, [row[: len(headings)] for row in rows])
    if left_out := len(record.tasks) - len(shown):
        others = "other " if rows else ""
        tasks = f"one {others}task" if left_out == 1 else f"{left_out} {others}tasks"
        limit = f"less than {memory_chart.SHORTEST_SECONDS:g} s"
        yield f'<p class="soft">{tasks.capitalize()} took {limit}{"" if left_out == 1 else " each"}.</p>'


def _machine() -> Iterator[str]:
    yield "<h2>Machine</h2>"
    yield "<dl>"
    for name, text in facts.read().items():
        yield f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
    yield "</dl>"


def _notices(record: RunRecord) -> Iterator[str]:
    if record.notices:
        yield "<h2>What was said besides</h2>"
        yield '<ul class="notices">'
        yield from (f"<li>{escape(without_person(text))}</li>" for text in record.notices)
        yield "</ul>"


def _table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Write a table whose first column names its rows; columns of amounts stand to the right."""
    listed = [tuple(row) for row in rows]
    numeric = {
        column for column in range(1, len(headings)) if all(_AMOUNT.fullmatch(row[column]) for row in listed)
    }
    yield f'<div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0"><table>'
    yield f"<caption>{escape(caption)}</caption><thead><tr>"
    for column, heading in enumerate(headings):
        kind = ' class="number"' if column in numeric else ""
        # An empty corner is no heading.
        yield f'<th scope="col"{kind}>{escape(heading)}</th>' if heading else "<td></td>"
    yield "</tr></thead><tbody>"
    for row in listed:
        yield f'<tr><th scope="row">{escape(without_person(row[0]))}</th>'
        for column, text in enumerate(row[1:], start=1):
            kinds = ["number"] if column in numeric else []
            kinds += {"ok": ["good"], "failed": ["bad"]}.get(text, [])
            kind = f' class="{" ".join(kinds)}"' if kinds else ""
            yield f"<td{kind}>{escape(without_person(text))}</td>"
        yield "</tr>"
    yield "</tbody></table></div>"

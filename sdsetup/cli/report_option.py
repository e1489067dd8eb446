"""The report that ``convert`` and ``install`` write, also when they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from conversions.errors import ConversionError
from conversions.events import Listener
from sdsetup import os_errors
from sdsetup.bootstrap.command_name import quoted
from sdsetup.cli import output, progress
from sdsetup.errors import InterruptedByUserError, SetupError, UsageError, saying_what_is_kept
from sdsetup.report_page import Outcome, RunRecord, recording, write

ReportOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the report goes, an HTML file. [default: beside the package]"),
]


# A package is not made where another one is, or is being made, where nothing can be written, or without what
# has to be installed for it.
_REFUSALS = frozenset(
    {"package.exists", "package.busy", "package.foreign", "package.not_a_folder", "package.read_only"}
    | {"package.here"}
    | {"graph.needs_pytorch", "verify.no_pytorch", "weights.needs_pytorch"}
)


@dataclass(kw_only=True)
class Reporting:
    """A run that will be reported.

    Attributes:
        listener: To hand to the libraries.
        page: The report's file.
        written: Whether it is there.
        outcome: What came out so far; whoever runs adds to it.
    """

    listener: Listener
    page: Path
    written: bool = False
    outcome: Outcome = field(default_factory=lambda: Outcome(command="", model=""))

    def show(self) -> None:
        """Say where the report is."""
        if self.written:
            output.say(f"The report: {self.page}")

    def add(self, **what: object) -> None:
        """Add to the outcome."""
        self.outcome = replace(self.outcome, **what)  # type: ignore[arg-type]


@contextmanager
def reporting(
    command: str, model: str, package: Path, page: Path | None, kept: Callable[[], str]
) -> Iterator[Reporting]:
    """Show progress and record it while the block runs, then write the report.

    A report beside a package is that package's: a run that converts nothing leaves it as it is, and one that
    fails while an older package is there is reported in a file of its own.

    Args:
        command: The verb.
        model: What is converted.
        package: Where its package goes; the report goes beside it.
        page: Where the report goes instead.
        kept: Says what an interruption leaves.

    Raises:
        UsageError: The report would take a folder's place.
    """
    if page is not None and page.is_dir():  # a root and the current folder have no name to write under
        raise UsageError(
            "report.folder",
            f"--report {page} is a folder; a report is one file.",
            f"for example: --report {quoted(str(page / 'report.html'))}",
        )
    place = page or package.with_name(f"{package.name}-report.html")
    record = None
    run = None
    problem = ""
    try:
        with (
            saying_what_is_kept(kept),
            progress.listening() as shown,
            recording(shown) as (listener, record),
        ):
            run = Reporting(listener=listener, page=place, outcome=Outcome(command=command, model=model))
            yield run
    except InterruptedByUserError:
        record = None  # the next run goes on, and reports
        raise
    except (SetupError, ConversionError) as error:
        if error.code in _REFUSALS:
            record = None  # nothing was done
        problem = error.message
        raise
    except Exception as error:
        refused = os_errors.find(error)
        problem = os_errors.explain(refused).message if refused else f"{type(error).__name__}: {error}"
        raise
    finally:
        if run is not None and record is not None and record.tasks:
            former = run.outcome.plan is None and place.is_file()  # of a package that this run did not make
            if former and problem and page is None:
                run.page = package.with_name(f"{package.name}-failed-report.html")
                former = False
            run.add(problem=problem)
            _write(run, record, keep=former and not problem)


def _write(run: Reporting, record: RunRecord, *, keep: bool) -> None:
    try:
        if not keep:
            write(run.page, run.outcome, record)
        run.written = True
        if run.outcome.problem:
            run.show()
    except ConversionError as error:
        output.say(f"No report was written to {run.page}: {error.message}")
    except OSError as error:
        output.say(f"No report was written to {run.page}: {os_errors.explain(error).message}")

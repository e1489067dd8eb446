"""``python -m tests.mutation [MODULE...]``: change modules a little and look whether their own tests notice.

Needs mutmut and coverage (the dependency group ``mutation``), and a system that forks. A module is named as
``conversions.weights.link`` or by its path; a package stands for all of its modules.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.mutation.own_tests import modules_of, own_tests

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- mutants -->", "<!-- end of mutants -->"
EQUIVALENT = Path(__file__).parent / "equivalent.toml"
SESSION = "session fixtures"
PROMISED = ["conversions", "sdsetup.runtime", "sdsetup.imaging", "sdsetup.hub", "sdsetup.doctor"]
# A mutant's tests take at most so long without it: the quickest that run its line come first.
_TESTS_SECONDS = 20.0
_HEAD = (
    "| module | tried | noticed | survived | change nothing | share noticed |",
    "|---|---|---|---|---|---|",
)


@dataclass(kw_only=True)
class Result:
    """A module's mutants.

    Attributes:
        module: Its path.
        total: How many mutants it has.
        noticed: How many of those tried a test noticed.
        equivalent: How many of the others change nothing that a test could notice.
        survivors: Diffs of the others.
    """

    module: str
    total: int
    noticed: int = 0
    equivalent: int = 0
    survivors: list[str] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    """Try mutants; return 1 where fewer than nine in ten of a module were noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", default=PROMISED, metavar="MODULE")
    parser.add_argument(
        "--sample", type=int, default=25, metavar="N", help="mutants of a module (default: 25)"
    )
    parser.add_argument(
        "--minutes", type=float, default=24 * 60.0, metavar="M", help="start no module after that"
    )
    parser.add_argument("--seed", type=int, default=1, help="equal seeds draw equal mutants of equal modules")
    parser.add_argument("--fresh", action="store_true", help="try mutants that were noticed before as well")
    parser.add_argument("--write", action="store_true", help=f"write the figures into {PAGE.name}")
    parser.add_argument("--keep", type=Path, default=ROOT / ".mutation", help="what was noticed before")
    options = parser.parse_args(arguments)
    for library in ("mutmut", "coverage"):
        if importlib.util.find_spec(library) is None:
            parser.error(f"{library} is not installed: python -m pip install --group mutation")
    if not hasattr(os, "fork"):
        parser.error("this system cannot fork processes.")
    modules = modules_of(options.modules, ROOT)
    until = time.monotonic() + options.minutes * 60
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        results = []
        for result in _tried(modules, Path(folder), options, until):
            results.append(result)
            if options.write:
                write([result])  # a long run may be ended at any time
    print(table(results))  # noqa: T201
    return int(any(_share(result) < 0.9 for result in results))


def _tried(modules: list[Path], folder: Path, options: argparse.Namespace, until: float) -> Iterator[Result]:
    """Try the mutants of modules; those with the same tests follow each other, as these are measured once."""
    from tests.mutation.trial import Baseline, Copy

    copy = Copy(ROOT, folder)
    measured: tuple[list[Path], Baseline] | None = None
    groups: dict[tuple[Path, ...], list[Path]] = {}
    for module in modules:
        groups.setdefault(tuple(own_tests(module, ROOT)), []).append(module)
    for tests, of_group in sorted(groups.items(), key=lambda group: len(group[0])):  # the quickest first
        for module in of_group:
            if time.monotonic() > until:
                return
            if measured is None or measured[0] != list(tests):
                measured = (list(tests), copy.measure(list(tests)))
                copy.preload(measured[1].imported)
                for test in measured[1].failed:
                    print(f"fails without a mutant, is left out: {test}", flush=True)  # noqa: T201
            result = _module(module, copy, measured[1], options)
            if result is not None:
                print("\n".join([*result.survivors, _row(result)]), flush=True)  # noqa: T201
                yield result


def _module(module: Path, copy: Any, baseline: Any, options: argparse.Namespace) -> Result | None:
    from tests.mutation import mutants

    source = (ROOT / module).read_text("utf-8")
    total = mutants.count(source)
    if not total:
        return None
    memory = _Memory(options.keep, module, source)
    result = Result(module=module.as_posix(), total=total)
    for mutant in mutants.sample(source, options.sample, f"{options.seed} {module.as_posix()}"):
        if not options.fresh and memory.noticed(mutant.source):
            result.noticed += 1
            continue
        if is_equivalent(module, mutant.removed, mutant.added):
            result.equivalent += 1
            continue
        tests, shared = _tests_of(baseline, module.as_posix(), mutant.line, source)
        seconds = 15 + 5 * sum(baseline.seconds[test] for test in tests)
        with copy.changed(module, mutant.source):
            noticed = bool(tests) and copy.notice(tests, seconds=seconds, shared=shared)
        if noticed:
            memory.keep(mutant.source)
            result.noticed += 1
        else:
            result.survivors.append(f"--- {module}, {len(tests)} tests\n{mutant.diff}\n")
    return result


def _tests_of(baseline: Any, module: str, line: int, source: str) -> tuple[list[str], bool]:
    """Return tests to run for a changed line, the quickest first, and whether session fixtures are as before.

    A line that an import runs, or fixtures alone, may be noticed by any test of the module; those that run
    other lines of it come first.
    """
    lines: dict[int, list[str]] = baseline.lines.get(module, {})
    statement, imported = _statement(source, line)
    contexts = {context for each in statement for context in lines.get(each, ())}
    direct = _named(contexts, baseline)
    of_module = _named({context for each in lines.values() for context in each}, baseline)
    if contexts and imported:
        direct = set(baseline.seconds)  # a table is also read by tests that call nothing
    elif contexts and not direct:
        direct = of_module or set(baseline.seconds)
    chosen: list[str] = []
    spent = 0.0
    for test in sorted(direct, key=lambda test: (test not in of_module, baseline.seconds[test], test)):
        spent += baseline.seconds[test]
        if chosen and spent > _TESTS_SECONDS:
            break
        chosen.append(test)
    return chosen, SESSION not in contexts


def _named(contexts: set[str], baseline: Any) -> set[str]:
    """Return the tests of contexts: a test, or for what ran in a process of its own all tests of a file."""
    return {test for test in baseline.seconds if test in contexts or test.partition("::")[0] in contexts}


def _statement(source: str, line: int) -> tuple[range, bool]:
    """Return the lines of the statement around a line, without its body, and whether an import runs it."""
    innermost: ast.stmt | None = None
    inside = False
    for node in ast.walk(ast.parse(source)):  # what is outside comes first
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            inside = inside or isinstance(innermost, ast.FunctionDef)
            innermost = node
    if innermost is None:
        return range(line, line + 1), True
    body: list[ast.stmt] = getattr(innermost, "body", [])
    end = body[0].lineno if body and body[0].lineno > innermost.lineno else (innermost.end_lineno or line) + 1
    return range(innermost.lineno, max(end, line + 1)), not inside


class _Memory:
    """Mutants of a module that were noticed before; forgotten when the module changes."""

    def __init__(self, folder: Path, module: Path, source: str) -> None:
        self._path = folder / module.with_suffix(".json")
        of_source = hashlib.sha256(source.encode()).hexdigest()
        kept = json.loads(self._path.read_text("utf-8")) if self._path.is_file() else {}
        self._kept = kept if kept.get("source") == of_source else {"source": of_source, "noticed": []}

    def noticed(self, mutant: str) -> bool:
        return hashlib.sha256(mutant.encode()).hexdigest() in self._kept["noticed"]

    def keep(self, mutant: str) -> None:
        self._kept["noticed"].append(hashlib.sha256(mutant.encode()).hexdigest())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._kept), "utf-8")


def is_equivalent(module: Path, removed: str, added: str) -> bool:
    """Say whether a change was read and found to change nothing that a test could notice."""
    known = tomllib.loads(EQUIVALENT.read_text("utf-8")).get("mutant", [])
    change = (module.as_posix(), removed, added)
    return any((each["module"], each["old"], each.get("new", added)) == change for each in known)


def _share(result: Result) -> float:
    changing = result.noticed + len(result.survivors)
    return result.noticed / changing if changing else 1.0


def _row(result: Result) -> str:
    tried = result.noticed + result.equivalent + len(result.survivors)
    return (
        f"| `{result.module}` | {tried} of {result.total:,} | {result.noticed} | {len(result.survivors)} "
        f"| {result.equivalent} | {_share(result):.0%} |"
    )


def table(results: list[Result]) -> str:
    """Write figures as a table of Markdown."""
    return "\n".join([*_HEAD, *map(_row, results), _row(_sum(results))]) + "\n"


def _sum(results: list[Result]) -> Result:
    return Result(
        module="all",
        total=sum(each.total for each in results),
        noticed=sum(each.noticed for each in results),
        equivalent=sum(each.equivalent for each in results),
        survivors=[diff for each in results for diff in each.survivors],
    )


def write(results: list[Result]) -> None:
    """Put figures into the page, in place of those of the same modules."""
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    block, after = rest.split(END)
    rows = {row.split("`")[1]: row for row in block.splitlines() if row.startswith("| `")}
    rows |= {result.module: _row(result) for result in results}
    lines = [BEGIN, *_HEAD, *(rows[name] for name in sorted(rows)), END]
    PAGE.write_text(before + "\n".join(lines) + after, "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

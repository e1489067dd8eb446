"""Run tests against a copy of the project, in forks of a process that has the libraries imported.

Each run is a fork: importing torch and ONNX Runtime takes seconds, forking a process that has them none.
The project's own modules are imported by the fork alone, from the copy, so that processes that tests start
see the changed module as well.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_OWN = ("tests", "sdsetup", "conversions")
# What pytest must import itself, and what keeps state of the process.
_NOT_IMPORTED = ("_pytest", "pytest", "pluggy", "xdist", "execnet", "_hypothesis", "coverage", "__mp_main__")
_LARGEST_FILE_BYTES = 64 << 30
SESSION = "session fixtures"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What tests do without a mutant.

    Attributes:
        seconds: Time of each test that passed, by its node id.
        lines: Tests that run a line, by module and line; ``SESSION`` stands for fixtures that all share.
        imported: Modules that they imported, the project's own left out.
        failed: Tests that did not pass, with their last word.
    """

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]] = field(repr=False)
    imported: list[str] = field(repr=False)
    failed: list[str]


class Copy:
    """A copy of the project to change.

    Args:
        root: The checkout.
        folder: An empty folder for the copy and for what tests write.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.project, self._work = folder / "project", folder
        names = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, check=True, capture_output=True
        ).stdout.decode()
        for name in filter(None, names.split("\0")):
            if (root / name).is_file():
                (self.project / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, self.project / name)
        (folder / "run").mkdir()
        self._root, self._changes = root, 0

    @contextlib.contextmanager
    def changed(self, module: Path, source: str) -> Iterator[None]:
        """Put another source into a module for a while."""
        original = (self.project / module).read_bytes()
        try:
            self._write(module, source.encode())
            yield
        finally:
            self._write(module, original)

    def _write(self, module: Path, source: bytes) -> None:
        path = self.project / module
        path.write_bytes(source)
        # Python finds compiled modules by seconds and size: every change needs a second of its own.
        self._changes += 1
        os.utime(path, (1_000_000_000 + self._changes,) * 2)

    def measure(self, tests: list[Path]) -> Baseline:
        """Run tests without a mutant and note which lines each of them runs."""
        told = self._work / "baseline.json"
        told.unlink(missing_ok=True)
        arguments = [path.as_posix() for path in tests]
        self._run(lambda: _measured(self.project, self._work, arguments, told), seconds=3600)
        if not told.is_file():
            raise SystemExit(f"The tests did not end: {(self._work / 'output').read_text('utf-8')[-3000:]}")
        raw = json.loads(told.read_text("utf-8"))
        raw["lines"] = {
            name: {int(line): tests for line, tests in lines.items()} for name, lines in raw["lines"].items()
        }
        return Baseline(**raw)

    def preload(self, modules: list[str]) -> None:
        """Import what tests import, so that forks have it."""
        for name in modules:
            if name not in sys.modules:
                with contextlib.suppress(BaseException):
                    importlib.import_module(name)

    def notice(self, tests: list[str], *, seconds: float, shared: bool) -> bool:
        """Say whether a test fails; a run that takes longer than ``seconds`` counts as one.

        Args:
            tests: Node ids, in the order to run them.
            seconds: When to stop waiting.
            shared: Use what session fixtures made for the baseline.
        """
        worker = "mutant" if shared else "master"
        return self._run(lambda: _pytest(self.project, self._work, tests, worker), seconds=seconds) != 0

    def _run(self, inside: Any, *, seconds: float) -> int:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                _enter(self._root, self.project, self._work)
                status = inside()
            finally:
                os._exit(status)
        until = time.monotonic() + seconds
        try:
            while True:
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    return os.waitstatus_to_exitcode(status)
                if time.monotonic() > until:
                    return -signal.SIGKILL
                time.sleep(0.01)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _enter(root: Path, project: Path, work: Path) -> None:
    """Become a process that knows the copy alone."""
    os.setsid()
    os.chdir(project)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE_BYTES,) * 2)
    output = os.open(work / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    kept = [path for path in paths if Path(path).resolve() != root]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(project), *kept])
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, not with every mutant
    sys.dont_write_bytecode = False
    sys.path[:] = [str(project), *(path for path in sys.path if path and Path(path).resolve() != root)]
    for name in [name for name in sys.modules if name.partition(".")[0] in _OWN]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _pytest(project: Path, work: Path, tests: list[str], worker: str, *plugins: object) -> int:
    os.environ["MUTATION_WORKER"] = worker
    return int(
        pytest.main(
            [
                *(
                    "-q",
                    "-x",
                    "-p",
                    "no:cacheprovider",
                    "-p",
                    "no:xdist",
                    "-p",
                    "tests.mutation.worker",
                    f"--rootdir={project}",
                ),
                *("-W", "ignore::pytest.PytestAssertRewriteWarning", f"--basetemp={work / 'run' / 'base'}"),
                *tests,
            ],
            plugins=list(plugins),
        )
    )


class _Measure:
    """Note how long tests take, and as whose context coverage counts lines."""

    def __init__(self, coverage: Any) -> None:
        self._coverage = coverage
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._context = ""

    def _switch(self, context: str) -> str:
        before, self._context = self._context, context
        # A process that a test starts may serve the next tests of its file.
        os.environ["MUTATION_CONTEXT"] = context.partition("::")[0]
        self._coverage.switch_context(context)
        return before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._switch(item.nodeid)
        result = yield
        self._switch("")
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        if fixturedef.scope != "session":
            return (yield)
        before = self._switch(SESSION)
        try:
            return (yield)
        finally:
            self._switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            last = report.longreprtext.strip().splitlines()[-1:]
            self.failed.append(" ".join([report.nodeid, *last]))
        elif report.when == "call" and report.passed:
            self.seconds[report.nodeid] = report.duration
        elif report.when == "setup" and report.skipped:
            self.seconds.pop(report.nodeid, None)


def _measured(project: Path, work: Path, tests: list[str], told: Path) -> int:
    from coverage import Coverage, CoverageData

    settings = work / "coveragerc"
    data = work / "coverage" / "data"
    data.parent.mkdir(exist_ok=True)
    for path in data.parent.iterdir():
        path.unlink()
    sources = f"{project}/conversions/*, {project}/sdsetup/*"
    settings.write_text(
        # Isolated processes leave by os._exit, which coverage's patch lets it write before.
        f"[run]\nparallel = true\npatch = _exit\nsigterm = true\ndata_file = {data}\n"
        f"include = {sources}\ncontext = ${{MUTATION_CONTEXT-}}\n"
        "disable_warnings = no-data-collected, module-not-measured, already-imported\n",
        "utf-8",
    )
    coverage = Coverage(config_file=False, data_file=f"{data}.own", include=sources.split(", "))
    measure = _Measure(coverage)
    coverage.start()
    os.environ["COVERAGE_PROCESS_START"] = str(settings)  # read by coverage's .pth in processes of tests
    arguments = [*tests, "--maxfail=1000"]
    _pytest(project, work, arguments, "mutant", measure)
    coverage.stop()
    coverage.save()
    lines: dict[str, dict[int, set[str]]] = {}
    for path in data.parent.iterdir():
        part = CoverageData(str(path))
        part.read()
        for file in part.measured_files():
            of_file = lines.setdefault(Path(file).relative_to(project).as_posix(), {})
            for line, contexts in part.contexts_by_lineno(file).items():
                of_file.setdefault(line, set()).update(contexts)
    told.write_text(
        json.dumps(
            {
                "seconds": measure.seconds,
                "failed": measure.failed,
                "lines": {
                    name: {str(line): sorted(contexts) for line, contexts in of_file.items()}
                    for name, of_file in lines.items()
                },
                "imported": [
                    name
                    for name in list(sys.modules)
                    if not name.startswith(_NOT_IMPORTED) and name.partition(".")[0] not in _OWN
                ],
            }
        ),
        "utf-8",
    )
    return 0

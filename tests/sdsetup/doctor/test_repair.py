"""What ``--fix`` starts, asks and says: with real programs, and a file that they write as the machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sdsetup.bootstrap.action import InstallAction
from sdsetup.doctor.finding import Finding, Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.repair import repair, repairable


@dataclass
class Person:
    """Answers questions, and remembers what was said."""

    answer: bool = True
    said: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def tell(self, text: str) -> None:
        self.said.append(text)

    def ask(self, question: str) -> bool:
        self.said.append(question)
        return self.answer

    def progress(self, line: str) -> None:
        self.lines.append(line)


def finding(name: str, verdict: Verdict) -> Finding:
    return Finding(id=name, title="", why="", verdict=verdict)


def writes(path: Path, status: int = 0) -> InstallAction:
    """An action that prints a line and adds one to a file."""
    code = f"print('at it'); open({str(path)!r}, 'a').write('x'); raise SystemExit({status})"
    return InstallAction(label=f"writing {path.name}", argv=(sys.executable, "-c", code))


def fix(*actions: InstallAction) -> Fix:
    return Fix(says="Write it", commands=("write",), actions=actions)


class Machine:
    """A folder; a thing is well when its file is there."""

    def __init__(self, folder: Path, *, status: int = 0, after: Verdict | None = None) -> None:
        self.folder, self.status, self.after, self.looks = folder, status, after, 0

    def look(self) -> tuple[Finding, ...]:
        self.looks += 1
        found = [finding("hub.reach", ok("it answers"))]
        for name in ("a", "b"):
            path = self.folder / name
            broken = failure(f"{name} is missing", fix(writes(path, self.status)))
            found.append(finding(name, (self.after or ok(f"{name} is there")) if path.exists() else broken))
        return tuple(found)


def test_what_has_actions_can_be_repaired(tmp_path: Path) -> None:
    action = writes(tmp_path / "a")
    findings = [
        finding("well", ok("fine")),
        finding("by hand", failure("bad", fix())),
        finding("broken", failure("bad", fix(action))),
        finding("worse", warning("bad", fix(action))),
        finding("unknown", skipped("no")),
    ]
    assert [each.id for each in repairable(findings)] == ["broken", "worse"]


def test_each_is_asked_about_started_and_looked_at_again(tmp_path: Path) -> None:
    machine, person = Machine(tmp_path), Person()
    after = repair(machine.look(), machine.look, person, dry_run=False)
    assert [(each.id, each.verdict.status) for each in after] == [
        ("hub.reach", "ok"),
        ("a", "ok"),
        ("b", "ok"),
    ]
    assert machine.looks == 3
    assert [(tmp_path / name).read_text("utf-8") for name in ("a", "b")] == ["x", "x"]
    assert person.lines == ["at it", "at it"]
    for_each = [
        [
            f"{name}: {name} is missing",
            "  Write it:",
            f"    writing {name}",
            "  Do that now?",
            f"  writing {name} ...",
            f"  that helped: {name} is there",
        ]
        for name in ("a", "b")
    ]
    assert person.said == [*for_each[0], *for_each[1]]


@pytest.mark.parametrize(
    ("answer", "dry_run", "last"),
    [(False, False, "  left as it is."), (True, True, "  not started: --dry-run.")],
)
def test_nothing_is_started_without_a_yes_or_in_a_dry_run(
    tmp_path: Path, answer: bool, dry_run: bool, last: str
) -> None:
    machine, person = Machine(tmp_path), Person(answer=answer)
    before = machine.look()
    assert repair(before, machine.look, person, dry_run=dry_run) == before
    assert machine.looks == 1
    assert not list(tmp_path.iterdir())
    assert person.said.count(last) == 2
    assert person.said[-1] == last
    assert ("  Do that now?" in person.said) is not dry_run


def test_a_repair_may_mend_what_comes_later(tmp_path: Path) -> None:
    machine, person = Machine(tmp_path), Person()
    both = fix(writes(tmp_path / "a"), writes(tmp_path / "b"))
    start = (finding("hub.reach", ok("")), finding("a", failure("no a", both)), machine.look()[2])
    after = repair(start, machine.look, person, dry_run=False)
    assert [each.verdict.status for each in after] == ["ok", "ok", "ok"]
    assert (tmp_path / "b").read_text("utf-8") == "x"
    assert person.said[-1] == "b: was mended along the way."


def test_a_program_that_fails_stops_its_fix_and_is_said(tmp_path: Path) -> None:
    machine, person = Machine(tmp_path, status=3), Person()
    first, never = writes(tmp_path / "c", 3), writes(tmp_path / "never")
    start = (finding("a", failure("no a", fix(first, never))),)
    (after,) = repair(start, machine.look, person, dry_run=False)
    assert after.verdict.status == "failure"
    assert (tmp_path / "c").exists()
    assert not (tmp_path / "never").exists()
    assert "  writing never ..." not in person.said
    place = person.said.index("  writing c ...")
    assert "writing c" in person.said[place + 1]
    assert person.said[place + 2].startswith("  next: ")
    assert person.said[-1] == "  that did not help: a is missing"


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (ok("good"), "that helped: good"),
        (skipped("gone"), "that helped: gone"),
        (warning("slow", fix()), "that did not help: slow"),
        (failure("bad", fix()), "that did not help: bad"),
    ],
)
def test_it_helped_where_nothing_is_left_to_complain_of(tmp_path: Path, after: Verdict, word: str) -> None:
    (tmp_path / "b").touch()
    machine, person = Machine(tmp_path, after=after), Person()
    repair(machine.look(), machine.look, person, dry_run=False)
    assert person.said[-1] == f"  {word}"


def test_where_nothing_can_be_repaired_that_is_said(tmp_path: Path) -> None:
    person, machine = Person(), Machine(tmp_path)
    start = (finding("well", ok("fine")), finding("by hand", failure("bad", fix())))
    assert repair(start, machine.look, person, dry_run=False) == start
    assert person.said == ["There is nothing here that --fix could repair."]
    assert machine.looks == 0

"""What ``sdsetup doctor`` does with its options, on this machine: what is shown and where, and its status."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sdsetup.bootstrap import places
from sdsetup.bootstrap.action import InstallAction
from sdsetup.doctor import forecast, registry, report
from sdsetup.doctor.checks import checks
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, warning
from sdsetup.doctor.registry import CheckContext, check
from sdsetup.doctor.run import Options, _questions, run
from sdsetup.errors import UsageError
from sdsetup.machine.facts import Questions


@dataclass
class Shown:
    """Where the result goes."""

    lines: list[report.Line] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def line(self, line: report.Line) -> None:
        self.lines.append(line)

    def text(self, text: str) -> None:
        self.texts.append(text)

    def document(self, document: dict[str, Any]) -> None:
        self.documents.append(document)

    def tell(self, text: str) -> None:
        self.told.append(text)

    def ask(self, question: str) -> bool:
        self.told.append(question)
        return True

    def progress(self, line: str) -> None:
        self.told.append(line)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checks of two files: without the first it does not work, without the second worse than it could."""
    checks()  # all are registered before they are set aside
    monkeypatch.setattr(registry, "_CHECKS", {})

    def seen(name: str, otherwise: Any) -> Any:
        def judge(_: CheckContext) -> Verdict:
            code = f"open({str(tmp_path / name)!r}, 'w').close()"
            made = InstallAction(label=f"making {name}", argv=(sys.executable, "-c", code))
            fix = Fix(says=f"Make {name}", actions=(made,))
            return ok(f"{name} is there") if (tmp_path / name).exists() else otherwise(f"no {name}", fix)

        return judge

    check("python.first", "First", why="Because.", reads="machine")(seen("first", failure))
    check("hub.second", "Second", why="So.", reads="machine", kinds=frozenset({"anything"}))(
        seen("second", warning)
    )
    return tmp_path


def shown(**options: Any) -> tuple[int, Shown]:
    renderer = Shown()
    return run(Options(**options), renderer), renderer


def texts(renderer: Shown) -> list[str]:
    return [line.text.strip() for line in renderer.lines]


def test_findings_are_shown_with_the_verdict_last(machine: Path) -> None:
    status, renderer = shown()
    assert status == 1
    assert "FAILURE First: no first" in texts(renderer)
    assert "warning Second: no second" in texts(renderer)
    assert texts(renderer)[-1].startswith("Not ready")
    assert not renderer.told
    (machine / "first").touch()
    status, renderer = shown()
    assert (status, texts(renderer)[-1].partition(",")[0]) == (
        0,
        "Ready to convert checkpoints and make images",
    )
    assert shown(strict=True)[0] == 1
    (machine / "second").touch()
    assert shown(strict=True)[0] == 0


def test_the_purpose_and_names_choose_the_checks(machine: Path) -> None:
    (machine / "first").touch()
    assert "warning Second: no second" not in texts(shown(kind="generate")[1])
    _, renderer = shown(only=["hub.second, python"])
    assert [text for text in texts(renderer) if "First" in text or "Second" in text] == [
        "ok      First: first is there",
        "warning Second: no second",
    ]
    _, renderer = shown(only=["hub"], kind="generate")
    assert "warning Second: no second" in texts(renderer)
    with pytest.raises(UsageError) as caught:
        shown(only=["python", "nothing"])
    assert caught.value.code == "doctor.unknown-check"
    with pytest.raises(UsageError) as caught:
        shown(kind="dance")
    assert caught.value.code == "doctor.unknown-purpose"
    assert "'dance'" in caught.value.message


def test_a_list_looks_at_nothing(machine: Path) -> None:
    status, renderer = shown(list_only=True, only=["python"])
    assert (status, renderer.texts) == (0, [f"{'python.first':24} First: Because."])
    assert renderer.lines == []
    assert not list(machine.iterdir())


def test_documents_and_reports_are_data(machine: Path) -> None:
    status, renderer = shown(as_json=True, kind="convert", model="demo")
    (document,) = renderer.documents
    assert status == 1
    assert document["ready"] is False
    assert document["purpose"]["kind"] == "convert"
    assert [each["id"] for each in document["findings"]] == ["python.first"]
    assert json.dumps(document)
    assert (renderer.lines, renderer.texts) == ([], [])
    status, renderer = shown(as_report=True)
    (text,) = renderer.texts
    assert status == 1
    assert text.startswith("### sdsetup doctor")
    assert "| hub.second | warning | no second |" in text
    assert renderer.lines == []


def test_repairs_are_made_between_what_is_shown_and_the_verdict(machine: Path) -> None:
    status, renderer = shown(fix=True, dry_run=True)
    assert status == 1
    assert not list(machine.iterdir())
    assert "  not started: --dry-run." in renderer.told
    status, renderer = shown(fix=True, strict=True)
    assert status == 0
    assert {path.name for path in machine.iterdir()} == {"first", "second"}
    assert "  that helped: first is there" in renderer.told
    assert texts(renderer)[-2].startswith("Not ready")
    assert texts(renderer)[-1].startswith("Ready")


@pytest.mark.parametrize("form", ["as_json", "as_report"])
def test_repairs_of_a_document_show_the_result_alone(machine: Path, form: str) -> None:
    status, renderer = shown(fix=True, **{form: True})
    assert status == 0
    assert renderer.lines == []
    assert [each["ready"] for each in renderer.documents] == ([True] if form == "as_json" else [])
    assert len(renderer.texts) == (form == "as_report")
    assert {path.name for path in machine.iterdir()} == {"first", "second"}


def questions(**options: Any) -> Questions:
    given = Options(**options)
    kind: Any = given.kind
    return _questions(given, forecast.purpose_for(kind, given.model))


def test_what_is_read_depends_on_the_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    output = Path("packages")
    assert questions() == Questions(output=output, importing="torch")
    assert questions(kind="install", output=tmp_path) == Questions(output=places.environment_folder())
    assert questions(kind="convert", model="a/b", offline=True) == Questions(
        output=output, model="a/b", offline=True, converting="a/b", importing="classes"
    )
    assert questions(kind="convert", model="owner/name") == Questions(
        output=output, converting="owner/name", importing="classes"
    )
    assert questions(kind="convert") == Questions(output=output, importing="classes")
    assert questions(kind="generate", model="owner/name", output=tmp_path) == Questions(
        output=tmp_path, drawing="owner/name"
    )
    assert questions(kind="generate", model="a/b") == Questions(output=output, model="a/b")

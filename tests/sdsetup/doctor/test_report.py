import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from sdsetup.bootstrap.action import InstallAction
from sdsetup.doctor import report
from sdsetup.doctor import shell as shells
from sdsetup.doctor.checks import checks
from sdsetup.doctor.finding import Finding, Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.purpose import Kind, purpose
from sdsetup.doctor.registry import CheckContext
from sdsetup.machine.facts import Environment, Python

ROOT = Path(__file__).parents[3]
SCHEMA = Path(report.__file__).with_name("schema.json")  # as installed
PAGE = ROOT / "docs" / "reference" / "doctor.md"


def _finding(verdict: object) -> Finding:
    return Finding(id="topic.name", title="Title", why="Why.", verdict=verdict)  # type: ignore[arg-type]


BAD = failure("[red]evidence[/red] \U0001f4a5", Fix(says="Do it", commands=("a --b",)))
POOR = warning("slow", Fix(says="Wait"))


def test_a_real_run_matches_the_published_schema() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "sdsetup", "doctor", "--json", "--offline"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    document = json.loads(answer.stdout)
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    assert [finding["id"] for finding in document["findings"]] == [check.id for check in checks()]


def test_the_schema_of_version_1_is_pinned() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    finding = schema["properties"]["findings"]["items"]
    assert set(schema["required"]) == set(schema["properties"])
    assert sorted(schema["properties"]) == [
        *("counts", "findings", "purpose", "ready", "schema", "sdsetup", "seconds", "verdict"),
    ]
    assert sorted(finding["properties"]) == ["docs", "evidence", "fix", "id", "status", "title", "why"]
    assert sorted(finding["properties"]["fix"]["oneOf"][1]["properties"]) == ["automatic", "commands", "says"]


def test_each_finding_has_its_place_on_the_page() -> None:
    headings = re.findall(r"^### (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [check.id for check in checks()]
    for check in checks():
        found = Finding(id=check.id, title=check.title, why=check.why, verdict=ok("x"))
        assert found.docs.startswith("docs/reference/doctor.md#")


def test_a_failure_exits_with_1_and_strict_counts_warnings() -> None:
    assert report.exit_status([_finding(ok("x"))], strict=True) == 0
    assert report.exit_status([_finding(POOR)], strict=False) == 0
    assert report.exit_status([_finding(POOR)], strict=True) == 1
    assert report.exit_status([_finding(BAD)], strict=False) == 1


def test_text_shows_evidence_fix_and_command_literally() -> None:
    text = "\n".join(line.text for line in report.lines([_finding(BAD)], purpose()))
    assert "[red]evidence[/red] \U0001f4a5" in text
    assert "Do it" in text
    assert "a --b" in text
    assert text.endswith("(1 failure)")


def test_a_report_hides_who_and_where_the_person_is() -> None:
    environment = Environment(home=r"C:\Users\Ann Lee", user="annlee", host="ANNS-PC")
    seen = (
        r"C:\Users\Ann Lee\.cache c:\users\ann lee\x annlee@anns-pc http://ann:pw@proxy:80"
        " hf_abcdefghijklmnop Bearer zzzzzzzzzz | pipe"
    )
    text = report.to_markdown([_finding(ok(seen))], environment, purpose())
    for secret in ("Ann Lee", "ann lee", "annlee", "anns-pc", "pw@", "hf_abc", "zzzz"):
        assert secret not in text
    assert r"~\\.cache" in text
    assert r"\| pipe" in text


def test_a_report_does_not_take_a_common_word_for_a_name() -> None:
    environment = Environment(home="/root", user="root", host="vm")
    assert "root certificate" in report.redact("/root/x root certificate", environment)
    assert report.redact("/root/x /rootless", environment) == "~/x /rootless"


@pytest.mark.parametrize(
    ("shell", "call", "set_to", "unset"),
    [
        ("sh", "'/a b/python' -m pip", "export X='1 2'", "unset X"),
        ("fish", "'/a b/python' -m pip", "set -gx X '1 2'", "set -e X"),
        ("cmd", '"/a b/python" -m pip', 'set "X=1 2"', "set X="),
        ("powershell", "& '/a b/python' -m pip", "$env:X = '1 2'", "Remove-Item Env:X"),
    ],
)
def test_commands_are_written_for_the_shell_of_the_person(
    shell: str, call: str, set_to: str, unset: str
) -> None:
    python = Python(version=(3, 12, 0), executable="/a b/python")
    context = CheckContext(environment=Environment(shell=shell, python=python), purpose=purpose())
    assert shells.python(context, "-m", "pip") == call
    assert shells.set_variable(context, "X", "1 2") == set_to
    assert shells.unset_variable(context, "X") == unset


def of(name: str, verdict: Verdict) -> Finding:
    return Finding(id=name, title=f"Title of {name}", why=f"Why {name}.", verdict=verdict)


REPAIRED = Fix(says="Do it", commands=("a", "b"), actions=(InstallAction(label="x", argv=("x",)),))
MIXED = [
    of("python.version", ok("3.12")),
    of("hub.reach", skipped("offline")),
    of("hub.token", failure("no token", Fix(says="Log in"))),
    of("memory.ram", warning("4 GB", REPAIRED)),
    of("runtime.import", failure("no DLL", REPAIRED)),
]


@pytest.mark.parametrize(
    ("findings", "kind", "model", "said"),
    [
        ([], "anything", "", "Ready to convert checkpoints and make images"),
        ([], "install", "", "Ready to install sdsetup"),
        ([], "convert", "", "Ready to convert a checkpoint"),
        ([], "convert", "a/b", "Ready to convert a/b"),
        ([], "generate", "", "Ready to make images"),
        (MIXED[:2], "generate", "a/b", "Ready to make images with a/b"),
        (MIXED[3:4], "install", "", "Ready to install sdsetup, but it could be better"),
        (MIXED[:3], "install", "", "Not ready to install sdsetup: one thing stands in the way: hub.token"),
        (
            MIXED,
            "generate",
            "",
            "Not ready to make images: 2 things stand in the way: hub.token, runtime.import",
        ),
    ],
)
def test_the_verdict_is_one_sentence(findings: list[Finding], kind: Kind, model: str, said: str) -> None:
    assert report.verdict_text(findings, replace(purpose(kind), model=model)) == said
    *_, last = report.lines(findings, replace(purpose(kind), model=model))
    assert last.text.startswith(f"{said} (")
    assert last.kind == "title"


def test_lines_are_grouped_by_topic_with_reasons_and_commands() -> None:
    assert [(line.kind, line.text) for line in report.lines(MIXED[1:4], purpose())] == [
        ("title", "hub"),
        ("skipped", "  skipped Title of hub.reach: offline"),
        ("failure", "  FAILURE Title of hub.token: no token"),
        ("detail", "          why: Why hub.token. [hub.token]"),
        ("detail", "          fix: Log in"),
        ("title", "memory"),
        ("warning", "  warning Title of memory.ram: 4 GB"),
        ("detail", "          why: Why memory.ram. [memory.ram]"),
        ("detail", "          fix: Do it"),
        ("command", "               a"),
        ("command", "               b"),
        (
            "title",
            f"{report.verdict_text(MIXED[1:4], purpose())} (1 failure, 1 warning, 1 skipped)",
        ),
    ]


def test_a_document_holds_everything() -> None:
    wanted = replace(purpose("convert"), model="a/b", basis="a guess")
    found = report.to_json(MIXED[2:], Environment(seconds={"hub": 1.23456, "adapters": 2.0}), wanted)
    assert found.pop("sdsetup")
    findings = found.pop("findings")
    assert found == {
        "schema": 1,
        "purpose": {"kind": "convert", "model": "a/b", "basis": "a guess"},
        "ready": False,
        "verdict": "Not ready to convert a/b: 2 things stand in the way: hub.token, runtime.import",
        "counts": {"failure": 2, "warning": 1, "ok": 0, "skipped": 0},
        "seconds": {"adapters": 2.0, "hub": 1.235},
    }
    assert list(found["seconds"]) == ["adapters", "hub"]
    assert findings[0] == {
        "id": "hub.token",
        "title": "Title of hub.token",
        "status": "failure",
        "evidence": "no token",
        "why": "Why hub.token.",
        "fix": {"says": "Log in", "commands": [], "automatic": False},
        "docs": "docs/reference/doctor.md#hubtoken",
    }
    assert findings[1]["fix"] == {"says": "Do it", "commands": ["a", "b"], "automatic": True}
    well = report.to_json(MIXED[:2], Environment(), wanted)
    assert well["ready"] is True
    assert well["findings"][0]["fix"] is None


def test_a_report_begins_with_the_worst_and_keeps_their_order() -> None:
    rows = report.to_markdown(MIXED, Environment(), purpose()).splitlines()
    assert rows[0] == "### sdsetup doctor"
    assert rows[2].endswith("Not ready to convert checkpoints and make images: 2 things stand in the way: "
                            "hub.token, runtime.import.")  # fmt: skip
    assert rows[4:] == [
        "| finding | status | seen |",
        "|---|---|---|",
        "| hub.token | failure | no token |",
        "| runtime.import | failure | no DLL |",
        "| memory.ram | warning | 4 GB |",
        "| python.version | ok | 3.12 |",
        "| hub.reach | skipped | offline |",
    ]
    odd = report.to_markdown([of("a.b", ok("a\n  b <c> `d` \\e|f"))], Environment(), purpose())
    assert odd.splitlines()[-1] == "| a.b | ok | a b &lt;c> 'd' \\\\e\\|f |"


@pytest.mark.parametrize(
    ("home", "text", "redacted"),
    [
        ("/h", "/h/x /hx /h", "~/x /hx ~"),
        ("/", "/h/x", "/h/x"),
        ("", "/h/x", "/h/x"),
        ("C:\\me\\", "c:\\me\\x C:/ME/y C:\\\\me\\\\z", "~\\x ~/y ~\\\\z"),
    ],
)
def test_home_is_found_in_every_way_of_writing_it(home: str, text: str, redacted: str) -> None:
    assert report.redact(text, Environment(home=home)) == redacted


def test_several_of_a_kind_are_counted_in_the_plural() -> None:
    findings = [
        of("memory.ram", POOR),
        of("memory.commit", POOR),
        of("hub.clock", ok("a")),
        of("hub.a", ok("b")),
    ]
    *_, last = report.lines(findings, purpose())
    assert last.text.endswith("(2 warnings, 2 ok)")

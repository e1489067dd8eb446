import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from sdsetup.doctor import report
from sdsetup.doctor import shell as shells
from sdsetup.doctor.checks import checks
from sdsetup.doctor.finding import Finding, Fix, failure, ok, warning
from sdsetup.doctor.purpose import purpose
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

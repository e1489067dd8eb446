"""Which checks are run, and what becomes of those that cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdsetup.doctor.checks import checks
from sdsetup.doctor.finding import Verdict, ok
from sdsetup.doctor.judge import judge, select
from sdsetup.doctor.purpose import purpose
from sdsetup.doctor.registry import CheckContext
from sdsetup.errors import UsageError
from sdsetup.machine.facts import Environment


def test_a_purpose_chooses_its_checks_in_their_order() -> None:
    every = [check.id for check in checks()]
    for kind in ("anything", "install", "convert", "generate"):
        chosen = [check.id for check in select(kind)]
        assert chosen == [check.id for check in checks() if kind in check.kinds]
        assert chosen == sorted(chosen, key=every.index)
    assert "hub.token" in [check.id for check in select("install")]
    # `install` brings what is missing of these, so that they do not stand in its way.
    assert not {check.id.partition(".")[0] for check in select("install")} & {"packages", "runtime"}
    assert "hub.token" not in [check.id for check in select("generate")]


def test_topics_and_ids_choose_whatever_the_purpose() -> None:
    topic = [check.id for check in select("generate", ["hub"])]
    assert topic == [check.id for check in checks() if check.id.startswith("hub.")]
    both = [check.id for check in select("install", ["storage.paths", "hub.clock"])]
    assert sorted(both) == ["hub.clock", "storage.paths"]
    assert both == [check.id for check in checks() if check.id in both]


@pytest.mark.parametrize("wanted", ["hub.", "clock", "hub.clock.x", ""])
def test_a_check_that_is_not_there_is_named(wanted: str) -> None:
    with pytest.raises(UsageError, match="There is no check called") as caught:
        select("install", ["hub", wanted])
    assert caught.value.code == "doctor.unknown-check"
    assert repr(wanted) in caught.value.message
    assert "--list" in (caught.value.hint or "")


def test_a_fact_that_was_not_read_is_skipped_with_the_reason_for_it() -> None:
    (clock,) = select("install", ["hub.clock"])
    told = Environment(unknown={"hub": "no answer within 5 s", "machine": "other"})
    for environment, said in ((told, "no answer within 5 s"), (Environment(), "hub was not read")):
        (finding,) = judge([clock], environment, purpose())
        assert (finding.id, finding.title, finding.why) == (clock.id, clock.title, clock.why)
        assert finding.verdict == Verdict(status="skipped", evidence=said)


def test_one_broken_check_hides_no_other() -> None:
    def crash(_: CheckContext) -> Verdict:
        raise ZeroDivisionError("by zero")

    first = checks()[0]
    broken, well = replace(first, judge=crash), replace(first, judge=lambda _: ok("well"))
    crashed, other = judge([broken, well], Environment(), purpose())
    assert crashed.verdict.status == "failure"
    assert crashed.verdict.evidence == "this check itself failed: ZeroDivisionError: by zero"
    assert crashed.verdict.fix is not None
    assert other.verdict == ok("well")

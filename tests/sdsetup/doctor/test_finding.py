"""Verdicts and findings: what they hold, and where they are explained."""

from __future__ import annotations

from sdsetup.doctor.finding import Finding, Fix, Verdict, failure, ok, skipped, warning


def test_verdicts_have_the_status_that_they_are_named_after() -> None:
    fix = Fix(says="Do it")
    assert ok("a") == Verdict(status="ok", evidence="a")
    assert skipped("b") == Verdict(status="skipped", evidence="b")
    assert warning("c", fix) == Verdict(status="warning", evidence="c", fix=fix)
    assert failure("d", fix) == Verdict(status="failure", evidence="d", fix=fix)
    assert (fix.commands, fix.actions, ok("a").fix) == ((), (), None)
    found = Finding(id="runtime.flavours", title="", why="", verdict=ok(""))
    assert found.docs == "docs/reference/doctor.md#runtimeflavours"

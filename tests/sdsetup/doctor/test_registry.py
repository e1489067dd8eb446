"""Checks as they are registered, and the facts that they may look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from sdsetup.doctor import registry
from sdsetup.doctor.finding import Verdict, ok
from sdsetup.doctor.purpose import purpose
from sdsetup.doctor.registry import ALL_KINDS, CheckContext, NotReadError, check, registered
from sdsetup.machine.facts import Environment, Folder
from tests.sdsetup.doctor.test_checks import _healthy

FACTS = ("machine", "python", "adapters", "packages", "imports", "runtime", "tools", "hub", "plan", "folders")


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_CHECKS", {})
    yield


def context(**known: Any) -> CheckContext:
    return CheckContext(environment=Environment(**known), purpose=purpose())


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_is_the_environment_s_or_was_not_read(name: str) -> None:
    fact: Any = object()
    assert getattr(context(**{name: fact}), name) is fact
    with pytest.raises(NotReadError) as caught:
        getattr(context(**{other: fact for other in FACTS if other != name}), name)
    assert caught.value.args == (name,)
    assert name in {each.name for each in fields(Environment)}


def test_a_folder_is_found_by_its_role() -> None:
    folders = _healthy("linux").folders
    assert folders is not None
    known = context(folders=folders)
    for folder in folders:
        assert isinstance(folder, Folder)
        assert known.folder(folder.role) is folder
    with pytest.raises(NotReadError) as caught:
        known.folder("attic")
    assert caught.value.args == ("folders",)
    with pytest.raises(NotReadError):
        context().folder("output")


@pytest.mark.usefixtures("empty")
def test_checks_are_listed_topic_by_topic_as_they_were_registered() -> None:
    def judge(_: CheckContext) -> Verdict:
        return ok("fine")

    for name in ("hub.reach", "python.version", "runtime.import", "python.bits"):
        assert check(name, f"title of {name}", why="why", reads="python  machine")(judge) is judge
    found = registered()
    assert [each.id for each in found] == ["python.version", "python.bits", "runtime.import", "hub.reach"]
    first = found[0]
    assert (first.title, first.why, first.judge) == ("title of python.version", "why", judge)
    assert first.reads == {"python", "machine"}
    assert first.kinds == ALL_KINDS == {"anything", "install", "convert", "generate"}
    with pytest.raises(ValueError, match=r"two checks are called hub\.reach"):
        check("hub.reach", "", why="", reads="")(judge)
    few: Any = frozenset({"generate"})
    check("model.own", "", why="", reads="", kinds=few)(judge)
    assert [each.kinds for each in registered() if each.id == "model.own"] == [few]

"""The help of a clone on a bare Python holds what the command line's own does."""

import re

import pytest

from sdsetup.bootstrap import command_name, help_page, places
from sdsetup.cli.verbs import VERBS

of_a_clone = pytest.mark.skipif(places.checkout() is None, reason="a wheel comes without the pages")


@of_a_clone
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_option_of_a_verb_is_there_whole(verb) -> None:
    shown = help_page.of(verb.name)
    assert max(map(len, shown.splitlines())) <= 80
    assert verb.summary in " ".join(shown.split())
    words = set(re.findall(r"(?<![\w-])--?[\w-]+", shown))
    for parameter in verb.load().params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert words.issuperset((*parameter.opts, *parameter.secondary_opts)), parameter.name
            assert parameter.help.split()[0] in shown


@of_a_clone
def test_the_overview_has_every_verb_and_other_words_have_no_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_name, "typed", lambda: "python3 -m sdsetup")
    shown = help_page.of("")
    assert max(map(len, shown.splitlines())) <= 80
    for verb in VERBS:
        assert re.search(rf"^  {verb.name} ", shown, re.MULTILINE)
        assert f"{verb.topic}:" in shown
    assert help_page.of("frobnicate") == ""


def test_a_wheel_has_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "checkout", lambda: None)
    assert help_page.of("install") == ""

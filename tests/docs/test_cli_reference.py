"""The page of the command line says what the commands say."""

from __future__ import annotations

from sdsetup.cli.verbs import VERBS
from tests.docs.cli_reference import PAGE, render


def test_the_page_is_what_the_commands_say_of_themselves() -> None:
    written = PAGE.read_text("utf-8")
    assert written == render(), "run python -m tests.docs.cli_reference --write"


def test_every_verb_and_every_option_that_is_shown_is_on_the_page() -> None:
    written = PAGE.read_text("utf-8")
    for verb in VERBS:
        section = written.split(f"\n### sdsetup {verb.name}\n", 1)[1].split("\n## ")[0].split("\n### ")[0]
        for param in verb.load().params:
            if param.name == "help" or getattr(param, "hidden", False):
                continue
            names = param.opts if param.param_type_name == "option" else [param.name.upper()]
            for name in names:
                assert f"`{name}" in section, (verb.name, name)

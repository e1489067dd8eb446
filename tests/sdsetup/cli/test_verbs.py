"""The overview: quick, whole, and in the words of the verbs themselves."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from sdsetup.cli.app import main
from sdsetup.cli.verbs import VERBS


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_summary_is_the_first_line_of_what_the_verb_says_of_itself(verb) -> None:
    help_text = verb.load().help
    assert inspect.cleandoc(help_text).splitlines()[0] == verb.summary


def test_the_overview_imports_nothing_heavy_and_names_every_verb() -> None:
    code = (
        "import sys; from sdsetup.cli.app import main; status = main(['--help']);"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'numpy', 'rich.console', 'huggingface_hub'};"
        "heavy &= set(sys.modules);"
        "sys.exit(status or (f'imported: {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"  {verb.name} " in done.stdout


def test_a_mistyped_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convrt"]) == 2
    assert "'convert'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "place", "expected"),
    [
        ("sdsetup gen", 1, ["generate"]),
        ("sdsetup verify --refer", 2, ["--reference"]),
        ("sdsetup verify --reference ", 3, ["pytorch", "graph"]),
    ],
)
def test_a_shell_completes_commands_options_and_values(words: str, place: int, expected: list[str]) -> None:
    asked = {"_SDSETUP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    start = "import sys; sys.argv[0] = 'sdsetup'; from sdsetup.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", start],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_script_of_a_shell_asks_this_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    written = capsys.readouterr().out
    assert f"complete_{shell}" in written
    assert "_SDSETUP_COMPLETE" in written


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_no_name_of_an_option_is_cut_in_a_terminal_of_80_columns(
    verb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([verb.name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines()) <= 80
    words = set(re.findall(r"(?<![\w-])--?[\w-]+", shown))
    for parameter in verb.load().params:
        assert words.issuperset((*parameter.opts, *parameter.secondary_opts)) or (
            parameter.param_type_name == "argument"
        )
        named = re.findall(r"(?<![\w-])--[a-z][\w-]*", parameter.help or "")
        assert words.issuperset(named), parameter.name


def test_options_about_where_to_run_stand_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--help"]) == 0
    assert "--vram" in capsys.readouterr().out.partition("Where to run:")[2]


def _taking_a_number() -> Iterator[tuple[str, str, str]]:
    """Yield a verb, an option of it and what the option takes, for all that take a number."""
    for verb in VERBS:
        name = verb.name.replace("-", "_")
        types = get_type_hints(getattr(import_module(f"sdsetup.cli.{name}"), name))
        for option in verb.load().params:
            kinds = {types[option.name], *get_args(types[option.name])}
            if option.name in types and (kinds := kinds & {int, float}):
                yield verb.name, option.opts[0], "a whole number" if int in kinds else "a number"


@pytest.mark.parametrize(("verb", "option", "takes"), tuple(_taking_a_number()))
def test_a_word_where_a_number_belongs_is_answered_in_plain_words(
    verb: str, option: str, takes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "x", option, "abc"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {option} takes {takes}, not 'abc'.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["benchmark", "x", "--vram", "0.1"], "--vram takes 0.5 or more, not '0.1'."),
        (["verify", "x", "--width", "1.5"], "--width takes a whole number, not '1.5'."),
        (["convert", "x", "--target", "foo"], "--target: 'foo' is not one of 'directml', 'cuda', 'cpu'."),
        (["verify"], "Missing argument 'package'."),
    ],
)
def test_other_values_that_cannot_be_read(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_the_usage_line_names_the_command_as_hints_do(tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sdsetup", *arguments],
            env={**os.environ, "PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[3])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    hint = said("generate", "--nonsense").rpartition("next: ")[2].strip()
    assert hint.endswith(" generate --help")
    assert not hint.startswith("sdsetup ")
    usage = said("generate", "--help").splitlines()[0]
    assert usage.startswith(f"Usage: {hint.removesuffix(' --help')} ")

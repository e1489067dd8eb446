"""Every error code of the library leads to a hint: its own, a command, or both."""

from __future__ import annotations

import ast
import pickle
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import conversions
from conversions.errors import ConversionError
from conversions.package.layout import open_package
from sdsetup.cli.app import main
from sdsetup.cli.verbs import VERBS, in_words_of, whose_options
from sdsetup.error_hints import HINTS, NEEDS_NO_COMMAND, hint_for

LIBRARY = Path(conversions.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z]")
OPTIONS = re.compile(r"(?<![\w-])--[a-z][\w-]*")
COMMAND = re.compile(r"\bsdsetup [a-z]")


@dataclass(frozen=True, kw_only=True)
class Raised:
    """One place that makes a ConversionError."""

    where: str
    code: str
    hinted: bool
    details: frozenset[str]


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(LIBRARY.rglob("*.py")):
        yield path.relative_to(LIBRARY).as_posix(), ast.parse(path.read_text("utf-8"))


def raised() -> Iterator[Raised]:
    for file, tree in trees():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ConversionError"):
                continue
            where = f"{file}:{node.lineno}"
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            arguments = dict(zip(("code", "message", "hint", "details"), node.args, strict=False)) | given
            code = arguments["code"]
            assert isinstance(code, ast.Constant), f"{where}: the code is no constant"
            details = arguments.get("details")
            assert details is None or isinstance(details, ast.Dict), f"{where}: the details are no literal"
            names = [] if details is None else [getattr(key, "value", None) for key in details.keys]
            yield Raised(
                where=where,
                code=code.value,
                hinted="hint" in arguments,
                details=frozenset(names),
            )


RAISED = tuple(raised())


def test_every_code_has_a_command_or_is_listed_as_needing_none():
    codes = {each.code for each in RAISED}
    assert len(codes) > 30
    assert codes == HINTS.keys() | NEEDS_NO_COMMAND
    assert not HINTS.keys() & NEEDS_NO_COMMAND


def test_an_error_without_a_command_has_a_hint_of_its_own():
    assert not [each for each in RAISED if each.code in NEEDS_NO_COMMAND and not each.hinted]


def test_a_suggestion_finds_its_details_wherever_its_code_is_raised():
    for code, text in HINTS.items():
        needed = {name for _, name, _, _ in string.Formatter().parse(text) if name}
        for each in RAISED:
            assert each.code != code or needed <= each.details, each.where


def test_suggested_verbs_exist():
    verbs = {verb.name for verb in VERBS}
    named = {found for text in HINTS.values() for found in re.findall(r"\bsdsetup ([a-z-]+)", text)}
    assert named
    assert named <= verbs


def test_the_library_names_no_command_and_no_option():
    found = [
        f"{file}:{node.lineno}: {node.value}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (OPTION.search(node.value) or COMMAND.search(node.value))
    ]
    assert not found


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_an_option_that_a_verb_does_not_have_is_suggested_with_the_verb_that_has_it(verb):
    for text in HINTS.values():
        hint = text.replace("{component}", "safety-checker").replace("{submodels:--keep-fp32}", "--keep-fp32")
        said = whose_options(hint, verb.name)
        alone = OPTIONS.findall(re.sub(r"sdsetup [a-z][^.,;]*", "", hint))
        lacking = [name for name in alone if name not in verb.options]
        assert bool(said) == bool(lacking)
        if lacking:
            owner = said.rpartition(" ")[2].rstrip(".")
            assert set(lacking) <= next(each.options for each in VERBS if each.name == owner)


def test_where_a_package_goes_is_told_in_the_words_of_the_verb():
    hint = HINTS["package.read_only"]
    assert "--output" in in_words_of(hint, "convert")
    mine = in_words_of(hint, "install")
    assert mine == "Choose a folder of your own with --folder."
    assert whose_options(mine, "install") == ""


def test_several_submodels_become_several_options():
    error = ConversionError("weights.overflow", "Too large.", details={"submodels": ("unet", "vae_decoder")})
    assert hint_for(error) == (
        "Add --keep-fp32 unet --keep-fp32 vae_decoder to keep that much in float32, or use --precision fp32."
    )


def test_the_library_s_hint_comes_first_and_is_never_lost():
    known = ConversionError("checkpoint.corrupt", "It is damaged.", "Download or copy this file again.")
    assert hint_for(known) == "Download or copy this file again. Then run the same command again."
    assert hint_for(ConversionError("not.listed", "It is odd.", "Look here.")) == "Look here."


def test_an_error_is_the_same_after_another_process_raised_it():
    error = ConversionError("weights.overflow", "Too large.", "General.", {"submodels": ("unet",)})
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 - as multiprocessing sends it
    assert (arrived.code, arrived.message, arrived.hint) == (error.code, error.message, error.hint)
    assert arrived.details == error.details
    with pytest.raises(TypeError):
        arrived.details["submodels"] = ()


def test_the_command_line_shows_the_command_for_a_library_error(tmp_path, capsys):
    with pytest.raises(ConversionError) as caught:
        open_package(tmp_path / "nothing")
    assert "sdsetup" not in f"{caught.value.message} {caught.value.hint}"
    assert main(["verify", str(tmp_path / "nothing")]) == 1
    assert f"next: {HINTS['package.missing']}" in capsys.readouterr().err

"""Which verbs there are, each imported only when called: ``--help`` is the first thing people wait for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb; its function has the name of its module.

    Attributes:
        name: As it is typed.
        topic: The heading that it stands under.
        summary: The first line of its function's docstring.
    """

    name: str
    topic: str
    summary: str

    def load(self) -> Command:
        """Import the verb."""
        name = self.name.replace("-", "_")
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        single.command(self.name, cls=VerbCommand)(getattr(import_module(f"sdsetup.cli.{name}"), name))
        return typer.main.get_command(single)

    @property
    def options(self) -> frozenset[str]:
        """The names of its options; imports it."""
        return frozenset(
            name
            for each in self.load().params
            for name in (*each.opts, *each.secondary_opts)
            if name[0] == "-"
        )


# Stands for a hyphen while lines are broken, which may not end after it.
_UNBROKEN = "\N{NON-BREAKING HYPHEN}"

_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_WHOLE_COMMAND = re.compile(r"\bsdsetup [a-z][^.,;]*")

_FIRST, _MODELS, _IMAGES, _HUB, _SHELL = "Start here", "Models", "Images", "Hugging Face", "Shell"

VERBS = (
    Verb(
        name="install",
        topic=_FIRST,
        summary="Install what is needed, convert a model, verify it, and make the first image.",
    ),
    Verb(
        name="doctor",
        topic=_FIRST,
        summary="Look whether this machine can do it, why not, and what to type.",
    ),
    Verb(
        name="update",
        topic=_FIRST,
        summary="Update to the newest release and the versions tested with it, or go back.",
    ),
    Verb(
        name="uninstall",
        topic=_FIRST,
        summary="Remove what was installed, and leave packages, images and downloaded models.",
    ),
    Verb(
        name="convert",
        topic=_MODELS,
        summary="Convert a checkpoint into a verified ONNX package, and make a first image with it.",
    ),
    Verb(
        name="inspect",
        topic=_MODELS,
        summary="Tell what a checkpoint or a package is and what converting it needs.",
    ),
    Verb(
        name="verify",
        topic=_MODELS,
        summary="Check a package: files, graphs, where every node runs, and the numbers.",
    ),
    Verb(
        name="download",
        topic=_MODELS,
        summary="Download the files of a model that a conversion needs, and no others.",
    ),
    Verb(
        name="generate",
        topic=_IMAGES,
        summary="Make images from a prompt with a converted package.",
    ),
    Verb(
        name="smoke-test",
        topic=_IMAGES,
        summary="Make an image and fail if it is black, flat, full of NaN or not what was asked for.",
    ),
    Verb(
        name="benchmark",
        topic=_IMAGES,
        summary="Time loading, steps and images, and watch memory, to compare machines.",
    ),
    Verb(
        name="login",
        topic=_HUB,
        summary="Log in to the Hugging Face Hub with a browser, or with a token.",
    ),
    Verb(
        name="whoami",
        topic=_HUB,
        summary="Say which account of the Hugging Face Hub is in use, and where its token comes from.",
    ),
    Verb(name="logout", topic=_HUB, summary="Forget the saved tokens of the Hugging Face Hub."),
    Verb(
        name="completion",
        topic=_SHELL,
        summary="Write the script that lets a shell complete commands and options.",
    ),
)


def in_words_of(hint: str, verb: str) -> str:
    """Name options as the verb has them: where its package goes, `install` is told by --folder.

    Args:
        hint: What to do next, in the words of `convert`.
        verb: The one that was called.
    """
    return re.sub(r"(?<![\w-])--output(?![\w-])", "--folder", hint) if verb == "install" else hint


def whose_options(hint: str, verb: str) -> str:
    """Say of which other verb the options are that a hint names without naming their command.

    Args:
        hint: What to do next, in the words of the verb that most people get it from.
        verb: The one that was called.

    Returns:
        A sentence; empty where the called verb has them all.
    """
    plain = _WHOLE_COMMAND.sub("", hint)
    named = dict.fromkeys(_OPTION.findall(plain))
    called = next((each for each in VERBS if each.name == verb), None)
    lacking = [name for name in named if called is not None and name not in called.options]
    for other in sorted(VERBS, key=lambda each: each.name != "convert") if lacking else ():
        if other.options.issuperset(lacking):
            are = "is an option" if len(lacking) == 1 else "are options"
            return f"{' and '.join(lacking)} {are} of sdsetup {other.name}."
    return ""


class _Commands(Mapping[str, Any]):
    """The verbs as the command line's library wants them, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Command:
        for verb in VERBS:
            if verb.name == name:
                return verb.load()
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (verb.name for verb in VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class VerbCommand(TyperCommand):
    """A verb whose help is plain text: rich's tables cut names of options in a terminal of 80 columns."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read what was typed.

        Raises:
            UsageError: There are more words than arguments.
        """
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            from sdsetup.cli import loose_words

            names = [each.name or "" for each in self.params if each.param_type_name == "argument"]
            words = [*(str(ctx.params[name]) for name in names), *rest]
            raise loose_words.too_many(self.name or "", names, words)
        return rest

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the help; no line ends within a name that has hyphens."""
        super(TyperCommand, self).format_help(ctx, formatter)
        formatter.buffer[:] = [text.replace(_UNBROKEN, "-") for text in formatter.buffer]

    def format_help_text(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002 - typer's signature
        """Write what the verb does."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(inspect.cleandoc(self.help or "").replace("-", _UNBROKEN))

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write arguments and options, each group of options under its heading."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                heading = getattr(parameter, "rich_help_panel", None) or usual
                sections.setdefault(heading, []).append((record[0], record[1].replace("-", _UNBROKEN)))
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class VerbGroup(TyperGroup):
    """The command line's top: an overview in plain text by topic, and the verbs by name."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": None})
        self.commands = _Commands()  # type: ignore[assignment]  # it is only read

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 - typer's signature
        """Name the verbs in the overview's order."""
        return list(self.commands)

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the overview without rich, whose import takes longer than all the rest."""
        super(TyperGroup, self).format_help(ctx, formatter)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002 - typer's signature
        """Write the verbs under their topics."""
        for topic in dict.fromkeys(verb.topic for verb in VERBS):
            with formatter.section(topic):
                formatter.write_dl([(verb.name, verb.summary) for verb in VERBS if verb.topic == topic])

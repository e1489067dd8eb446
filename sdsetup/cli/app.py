"""The typer application: errors end here and nowhere else."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from conversions.errors import ConversionError
from sdsetup import os_errors
from sdsetup.bootstrap.command_name import typed, verb_of
from sdsetup.bootstrap.console import interrupted
from sdsetup.bootstrap.version import lines as version_lines
from sdsetup.cli import bad_value, interruption, output
from sdsetup.cli.verbs import VerbGroup, in_words_of, whose_options
from sdsetup.error_hints import hint_for
from sdsetup.errors import InterruptedByUserError, SetupError, UsageError
from sdsetup.redaction import RedactingFormatter, redact, redacting_streams

app = typer.Typer(
    name="sdsetup",
    cls=VerbGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From nothing to Stable Diffusion images on a GPU that is not NVIDIA's.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.emit("\n".join(version_lines(verbose=False)))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version; with --verbose also Python, the system and the packages.",
        ),
    ] = False,
) -> None:
    pass


def _log_everything() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG, handlers=[handler])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; None takes ``sys.argv``.

    Returns:
        0 when all went well, 1 for a failure that was explained, 2 for wrong usage, 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    debugging = os.environ.get("SDSETUP_DEBUG") == "1"
    output.tolerate_any_text()
    with redacting_streams(), warnings.catch_warnings():
        if debugging:
            _log_everything()
        elif not sys.warnoptions:
            warnings.simplefilter("ignore")  # written for developers
        try:
            with interruption.answered():
                return _run(given)
        except (Exception, KeyboardInterrupt) as error:
            if debugging and not isinstance(error, KeyboardInterrupt):
                logging.getLogger(__name__).exception("the command failed")
            return _explain(error, given)
        finally:
            output.settle()


def _run(arguments: list[str]) -> int:
    """Run a verb; what it raises comes out of here."""
    os_errors.allow_many_files()
    completing = "_SDSETUP_COMPLETE" in os.environ
    if completing:  # a shell asks for completions
        from typer._completion_classes import completion_init

        completion_init()
    try:
        # A completion is asked for by the plain name.
        status = app(arguments, standalone_mode=False, prog_name="sdsetup" if completing else typed())
    except SystemExit as stop:
        status = stop.code if stop.code is None or isinstance(stop.code, int) else 1
    except typer.Abort as error:
        raise KeyboardInterrupt from error  # the end of the input where an answer was asked for
    if status == 130:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _explain(error: BaseException, arguments: list[str]) -> int:
    """Show an error to the person, and return the exit status."""
    match error:
        case KeyboardInterrupt():
            output.say(interrupted(arguments))
            return 130
        case InterruptedByUserError():
            output.say(interrupted(arguments))
            if error.message:
                output.say(error.message)
            return 130
        case SetupError() | ConversionError():
            verb = verb_of(arguments)
            hint = in_words_of(hint_for(error) if isinstance(error, ConversionError) else error.hint, verb)
            output.complain(error.message, " ".join(filter(None, (hint, whose_options(hint, verb)))))
            return 2 if isinstance(error, UsageError) else 1
    if hasattr(error, "format_message"):  # typer's, whose common class has no public name in all versions
        return _explain_usage(error)
    refused = os_errors.find(error)
    if refused is not None:
        explained = os_errors.explain(refused)
        output.complain(explained.message, explained.hint)
        return 1
    from sdsetup.cli import crash_log

    log = crash_log.write(error, arguments)
    place = f"report it with the log: {log}" if log else "set SDSETUP_DEBUG=1 and run the same command again."
    output.complain(f"internal error: {type(error).__name__}: {_first_line(str(error))}", place)
    return 1


def _explain_usage(error: Any) -> int:
    """Show what typer says of a command line that it cannot read."""
    status = int(error.exit_code)
    said = bad_value.in_plain_words(error) or str(error.format_message())
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # the message is the help
        output.say(said)
    else:
        output.complain(said, f"{context.command_path if context is not None else 'sdsetup'} --help")
    return status


def _first_line(text: str) -> str:
    return redact(next(iter(text.strip().splitlines()), ""))[:300]

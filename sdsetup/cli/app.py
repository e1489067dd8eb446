"""The typer application: errors end here and nowhere else."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from conversions.errors import ConversionError
from sdsetup import __version__
from sdsetup.cli import output
from sdsetup.cli.verbs import VerbGroup
from sdsetup.error_hints import hint_for
from sdsetup.errors import SetupError, UsageError
from sdsetup.redaction import RedactingFormatter, redact

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
        output.emit(f"sdsetup {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
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
    output.tolerate_any_text()
    if os.environ.get("SDSETUP_DEBUG") == "1":
        _log_everything()
    try:
        app(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        output.complain("stopped by Ctrl-C; nothing half-made was kept.", "")
        return 130
    except (SetupError, ConversionError) as error:
        if os.environ.get("SDSETUP_DEBUG") == "1":
            logging.getLogger(__name__).exception(error.code)
        hint = hint_for(error) if isinstance(error, ConversionError) else error.hint
        output.complain(redact(error.message), redact(hint))
        return 2 if isinstance(error, UsageError) else 1
    except Exception as error:
        if os.environ.get("SDSETUP_DEBUG") == "1":
            logging.getLogger(__name__).exception("not foreseen")
        output.complain(
            redact(f"something that sdsetup did not foresee: {type(error).__name__}: {error}"),
            "set SDSETUP_DEBUG=1, run the same command again and report what it prints.",
        )
        return 1
    return 0

"""``sdsetup login``."""

from __future__ import annotations

import getpass
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdsetup.cli import output
from sdsetup.cli.whoami import describe_source
from sdsetup.errors import SetupError, UsageError

if TYPE_CHECKING:
    from sdsetup.hub.login import Invitation


def login(
    token: Annotated[str | None, typer.Argument(hidden=True)] = None,
    token_stdin: Annotated[
        bool,
        typer.Option("--token-stdin", help="Read a token from standard input; on a terminal, paste it."),
    ] = False,
) -> None:
    """Log in to the Hugging Face Hub with a browser, or with a token."""
    from sdsetup.hub import login as hub_login
    from sdsetup.redaction import conceal

    if token is not None:
        conceal(token)
        raise UsageError(
            "usage.token-in-arguments",
            "A token on the command line can be seen by every program and stays in the shell's history.",
            "Revoke it, make a new one, and run: sdsetup login --token-stdin",
        )
    if token_stdin:
        hub_login.login_with_token(_read_token())
    else:
        hub_login.login_by_browser(_invite)
    _say_who()


def log_in_where_needed(model: str) -> None:
    """Offer a log-in by browser to the person at the terminal, if only an account may download a model.

    Whatever else is wrong with the model is left to whoever opens it.

    Args:
        model: As for a conversion.

    Raises:
        SetupError: ``hub.gated``: the person did not want to, or the account has not accepted the terms.
    """
    from sdsetup import hub, single_file_source
    from sdsetup.bootstrap import console
    from sdsetup.hub import login as hub_login
    from sdsetup.hub.token import token_source

    if Path(model).expanduser().exists() or not console.is_attended() or token_source() is not None:
        return
    address = single_file_source.file_on_hub(model)
    named = model if address is None else address.repo_id
    try:
        hub.resolve(named)
    except SetupError as error:
        if error.code != "hub.gated":
            return
        output.say(error.message)
        if not console.ask("Log in with a browser now?", yes=False):
            raise
        hub_login.login_by_browser(_invite)
        _say_who()
        hub.resolve(named)


def _say_who() -> None:
    from sdsetup.hub import login as hub_login

    me = hub_login.whoami()
    output.say(f"Logged in as {me.name}; {describe_source(me.source)}.")


def _read_token() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Token (it stays unseen): ", stream=sys.stderr)
    return sys.stdin.readline()


def _invite(invitation: Invitation) -> None:
    output.say(f"Open {invitation.page}")
    output.say(f"and confirm the code {invitation.code} within {invitation.valid_seconds // 60} minutes.")
    if sys.stderr.isatty() and webbrowser.open(invitation.page):
        output.say("A browser was opened. Waiting ...")

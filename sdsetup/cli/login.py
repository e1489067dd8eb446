"""``sdsetup login``."""

from __future__ import annotations

import getpass
import sys
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from sdsetup.cli import output
from sdsetup.cli.whoami import describe_source
from sdsetup.errors import UsageError

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

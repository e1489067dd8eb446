"""``sdsetup whoami``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sdsetup.cli import output

if TYPE_CHECKING:
    from sdsetup.hub.token import TokenSource


def whoami(
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")] = False,
) -> None:
    """Say which account of the Hugging Face Hub is in use, and where its token comes from."""
    from sdsetup.hub import login as hub_login

    me = hub_login.whoami()
    if as_json:
        output.emit_json(
            {
                "name": me.name,
                "organisations": list(me.organisations),
                "token": {
                    "name": me.token_name,
                    "role": me.role,
                    "source": me.source.where,
                    "hides_saved": me.source.hides_saved,
                },
            }
        )
        return
    output.emit(me.name)
    if me.organisations:
        output.say(f"organisations: {', '.join(me.organisations)}")
    role = f", may {me.role}" if me.role in ("read", "write") else ""
    name = f" {me.token_name!r}" if me.token_name else ""
    output.say(f"token{name}{role}; {describe_source(me.source)}.")


def describe_source(source: TokenSource) -> str:
    """Say where the token in use comes from, and what it hides."""
    if source.hides_saved:
        return f"the token {source.where} is in use and hides the saved one"
    return f"the token {source.where} is in use"

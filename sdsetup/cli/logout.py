"""``sdsetup logout``."""

from __future__ import annotations

from sdsetup.cli import output


def logout() -> None:
    """Forget the saved tokens of the Hugging Face Hub."""
    from sdsetup.hub import login as hub_login

    left = hub_login.logout()
    if left is None:
        output.say("Logged out: no token is saved here.")
    elif left.variable:
        output.say(f"Saved tokens are gone, but {left.variable} is set and still logs you in. Unset it too.")
    else:
        output.say(f"Saved tokens are gone, but a token {left.where} still logs you in.")

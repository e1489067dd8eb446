"""Logging in and out, and who one is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub._login import _save_oauth_token
from huggingface_hub.errors import DeviceCodeError, OAuthErrorCode
from huggingface_hub.utils._oauth_device import poll_device_token, request_device_code

from conversions.events import ignore
from sdsetup.errors import SetupError
from sdsetup.hub import session
from sdsetup.hub.access import endpoint, explaining
from sdsetup.hub.token import TokenSource, token_source
from sdsetup.redaction import conceal
from sdsetup.token_format import find_fault


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom the Hub takes the owner of a token for.

    Attributes:
        name: The account.
        organisations: Those it belongs to.
        token_name: What the account's owner called the token; empty for a log-in by browser.
        role: ``"read"``, ``"write"``, ``"fineGrained"``; empty when the Hub tells none.
        source: Where the token in use comes from.
    """

    name: str
    organisations: tuple[str, ...]
    token_name: str
    role: str
    source: TokenSource


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """What a person does to log in with a browser.

    Attributes:
        page: The address to open; the code is filled in there where the Hub can do it.
        code: The code to compare or to enter.
        valid_seconds: How long the Hub waits.
    """

    page: str
    code: str
    valid_seconds: int


def whoami() -> Identity:
    """Ask the Hub whose token is in use.

    Raises:
        SetupError: ``hub.not-logged-in``, or one of ``hub.access.explaining``.
    """
    source = token_source()
    if source is None:
        raise SetupError("hub.not-logged-in", "Nobody is logged in here.", "Run: sdsetup login")
    with explaining("the account"):
        answer = session.patiently(session.api().whoami, ignore)
        token = (answer.get("auth") or {}).get("accessToken") or {}
        return Identity(
            name=answer["name"],
            organisations=tuple(entry["name"] for entry in answer.get("orgs") or ()),
            token_name=token.get("displayName") or "",
            role=token.get("role") or "",
            source=source,
        )


def login_with_token(token: str) -> None:
    """Check a token with the Hub, and save it for this and every other program that uses the Hub's library.

    Args:
        token: From https://huggingface.co/settings/tokens.

    Raises:
        SetupError: ``hub.bad-token``, or one of ``hub.access.explaining``.
    """
    token = token.strip()
    conceal(token)
    if fault := find_fault(token):
        raise SetupError(
            "hub.bad-token",
            f"That is no token: it {fault}.",
            f"Copy it again from {_page_of_tokens()}",
        )
    session.api()
    try:
        with explaining("the account"):
            huggingface_hub.login(token=token)
    except SetupError as error:
        if error.code == "hub.unauthorised":
            raise SetupError(
                "hub.bad-token",
                "The Hub does not accept that token; nothing was saved.",
                f"Copy it again, or make a new one, at {_page_of_tokens()}",
            ) from error
        raise


def login_by_browser(invite: Callable[[Invitation], None]) -> None:
    """Let a person confirm a code in a browser, on this machine or any other.

    Args:
        invite: Shows the page and the code.

    Raises:
        SetupError: ``hub.login-refused``, ``hub.login-expired``, or one of ``hub.access.explaining``.
    """
    session.api()
    with explaining("the account"):
        try:
            device = request_device_code()
            conceal(device["device_code"])
            invite(
                Invitation(
                    page=device["verification_uri_complete"],
                    code=device["user_code"],
                    valid_seconds=device["expires_in"],
                )
            )
            answer = poll_device_token(device)
        except DeviceCodeError as error:
            if error.__cause__ is not None:
                raise error.__cause__ from error
            raise _refused(error) from error
        conceal(answer["access_token"])
        conceal(answer.get("refresh_token"))
        _save_oauth_token(answer)


def logout() -> TokenSource | None:
    """Forget every saved token.

    Returns:
        Where a token still comes from; None when there is none any more.

    Raises:
        SetupError: ``hub.storage`` when the saved tokens cannot be removed.
    """
    session.api()
    try:
        huggingface_hub.logout()
    except OSError as error:
        # It also tidies up after git, which need not exist, and complains about HF_TOKEN, which we report.
        left = token_source()
        if left is not None and not left.variable:
            raise SetupError(
                "hub.storage",
                f"The saved token could not be removed: {error}.",
                f"Delete {constants.HF_TOKEN_PATH}",
            ) from error
    return token_source()


def _refused(error: DeviceCodeError) -> SetupError:
    if error.error_code == OAuthErrorCode.ACCESS_DENIED:
        return SetupError("hub.login-refused", "The log-in was refused in the browser.", "Run: sdsetup login")
    if error.error_code == OAuthErrorCode.EXPIRED_TOKEN:
        return SetupError("hub.login-expired", "Nobody confirmed the code in time.", "Run: sdsetup login")
    return SetupError(
        "hub.login-refused",
        f"{endpoint()} did not let the log-in happen ({error.error_code or 'no reason given'}).",
        f"Make a token at {_page_of_tokens()} and run: sdsetup login --token-stdin",
    )


def _page_of_tokens() -> str:
    return f"{endpoint()}/settings/tokens"

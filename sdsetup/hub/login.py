"""Log in, log out, and identify the account."""

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
from sdsetup.hub.access import endpoint, translate_errors
from sdsetup.hub.token import TokenSource, token_source
from sdsetup.redaction import conceal
from sdsetup.token_format import find_fault


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The account that a token belongs to.

    Attributes:
        name: The account.
        organisations: Organisations of the account.
        token_name: Name of the token; empty for a log-in by browser.
        role: ``"read"``, ``"write"``, ``"fineGrained"``; empty when the Hub reports none.
        source: Source of the token in use.
    """

    name: str
    organisations: tuple[str, ...]
    token_name: str
    role: str
    source: TokenSource


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """Instructions for logging in with a browser.

    Attributes:
        page: The URL to open; includes the code where the Hub supports that.
        code: The code to compare or to enter.
        valid_seconds: How long the code is valid, in seconds.
    """

    page: str
    code: str
    valid_seconds: int


def whoami() -> Identity:
    """Query the Hub for the account of the token in use.

    Raises:
        SetupError: ``hub.not-logged-in``, or one of ``hub.access.translate_errors``.
    """
    source = token_source()
    if source is None:
        raise SetupError("hub.not-logged-in", "Nobody is logged in here.", "Run: sdsetup login")
    with translate_errors("the account"):
        answer = session.with_retries(session.api().whoami, ignore)
        token = (answer.get("auth") or {}).get("accessToken") or {}
        return Identity(
            name=answer["name"],
            organisations=tuple(entry["name"] for entry in answer.get("orgs") or ()),
            token_name=token.get("displayName") or "",
            role=token.get("role") or "",
            source=source,
        )


def login_with_token(token: str) -> None:
    """Check a token with the Hub and save it for all programs that use ``huggingface_hub``.

    Args:
        token: From https://huggingface.co/settings/tokens.

    Raises:
        SetupError: ``hub.bad-token``, or one of ``hub.access.translate_errors``.
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
        with translate_errors("the account"):
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
    """Log in by confirming a code in a browser, on any machine.

    Args:
        invite: Shows the page and the code to the user.

    Raises:
        SetupError: ``hub.login-refused``, ``hub.login-expired``, or one of ``hub.access.translate_errors``.
    """
    session.api()
    with translate_errors("the account"):
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
    """Delete every saved token.

    Returns:
        Source of a remaining token; None if there is none.

    Raises:
        SetupError: ``hub.storage`` when the saved tokens cannot be removed.
    """
    session.api()
    try:
        huggingface_hub.logout()
    except OSError as error:
        # The library also cleans up git credentials and warns about HF_TOKEN, which the caller reports.
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
        f"{endpoint()} refused the log-in ({error.error_code or 'no reason given'}).",
        f"Make a token at {_page_of_tokens()} and run: sdsetup login --token-stdin",
    )


def _page_of_tokens() -> str:
    return f"{endpoint()}/settings/tokens"

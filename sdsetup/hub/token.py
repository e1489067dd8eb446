"""Find the access token in use and its source."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_token

from sdsetup.redaction import conceal
from sdsetup.token_format import find_fault

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True, kw_only=True)
class TokenSource:
    """Source of the token in use.

    Attributes:
        where: For sentences such as "the token <where>".
        variable: The environment variable it stands in; empty for a saved token.
        hides_saved: Whether a saved token exists that this one hides.
        fault: What is wrong with it as it stands there, such as ``"has two lines"``; empty when nothing is.
    """

    where: str
    variable: str
    hides_saved: bool
    fault: str = ""


def token_source() -> TokenSource | None:
    """Find the token that requests carry; None when nobody is logged in."""
    text = _saved_token()
    saved = bool(text)
    for variable in _VARIABLES:
        if given := os.environ.get(variable, "").strip():
            conceal(given)
            return TokenSource(
                where=f"in {variable}", variable=variable, hides_saved=saved, fault=find_fault(given)
            )
    if os.environ.get("HF_OIDC_RESOURCE"):
        return TokenSource(where="of this CI job", variable="HF_OIDC_RESOURCE", hides_saved=saved)
    if saved:
        return TokenSource(
            where=f"saved in {constants.HF_TOKEN_PATH}",
            variable="",
            hides_saved=False,
            fault=find_fault(text),
        )
    token = get_token()
    if token is None:
        return None
    conceal(token)
    return TokenSource(where="of this notebook", variable="", hides_saved=False)


def _saved_token() -> str:
    try:
        token = Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    conceal(token)
    return token

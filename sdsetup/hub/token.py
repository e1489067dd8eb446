"""Find the access token in use and its source."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_token

from sdsetup.redaction import conceal

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True, kw_only=True)
class TokenSource:
    """Source of the token in use.

    Attributes:
        where: Completes "the token <where>" in messages.
        variable: Environment variable that holds it; empty for a saved token.
        hides_saved: Whether it overrides a saved token.
    """

    where: str
    variable: str
    hides_saved: bool


def token_source() -> TokenSource | None:
    """Return the source of the token in use; None when not logged in."""
    saved = _saved_token_exists()
    for variable in _VARIABLES:
        if os.environ.get(variable, "").strip():
            conceal(os.environ[variable].strip())
            return TokenSource(where=f"in {variable}", variable=variable, hides_saved=saved)
    if os.environ.get("HF_OIDC_RESOURCE"):
        return TokenSource(where="of this CI job", variable="HF_OIDC_RESOURCE", hides_saved=saved)
    if saved:
        return TokenSource(where=f"saved in {constants.HF_TOKEN_PATH}", variable="", hides_saved=False)
    token = get_token()
    if token is None:
        return None
    conceal(token)
    return TokenSource(where="of this notebook", variable="", hides_saved=False)


def _saved_token_exists() -> bool:
    try:
        token = Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return False
    conceal(token)
    return bool(token)

"""The Hub's client of this process, pointed at a server of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_api

from sdsetup.hub import session
from tests.hub_server.server import HubServer


@contextmanager
def asked_here(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Let this process ask a server, with nobody logged in.

    Args:
        hub: The server.
        folder: Where the cache and tokens lie.
        monkeypatch: Undoes it.
    """
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.endpoint)  # read when it was imported
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(folder / "stored_tokens"))
    monkeypatch.setattr(session, "_FIRST_WAIT_SECONDS", 0.001)
    session.api.cache_clear()
    yield hub
    session.api.cache_clear()

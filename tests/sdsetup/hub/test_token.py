"""Which access token is in use, where it stands, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _auth

from sdsetup import redaction
from sdsetup.hub.token import TokenSource, token_source

TOKEN = "hf_abcdefghABCDEFGH"  # noqa: S105
OTHER = "a secret of another shape"


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a saved token would lie; nobody is logged in."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(redaction, "_known", set())
    return tmp_path / "token"


def test_nobody_is_logged_in(saved: Path) -> None:
    assert token_source() is None
    saved.write_text(" \n", "utf-8")
    assert token_source() is None


def test_a_saved_token(saved: Path) -> None:
    saved.write_text(f"{TOKEN}\n", "utf-8")
    assert token_source() == TokenSource(where=f"saved in {saved}", variable="", hides_saved=False)
    saved.write_text(f"{TOKEN}\n{TOKEN}\n", "utf-8")
    found = token_source()
    assert found is not None
    assert found.fault == "has two lines"


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_a_variable_hides_a_saved_token(saved: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, f" {TOKEN} ")
    expected = TokenSource(where=f"in {variable}", variable=variable, hides_saved=False)
    assert token_source() == expected
    saved.write_text("hf_another", "utf-8")
    hiding = TokenSource(where=f"in {variable}", variable=variable, hides_saved=True)
    assert token_source() == hiding
    monkeypatch.setenv(variable, f"'{TOKEN}'")
    found = token_source()
    assert found is not None
    assert found.fault == "has quotes around it"
    monkeypatch.setenv(variable, "  ")
    found = token_source()
    assert found is not None
    assert found.variable == ""


def test_the_first_variable_counts(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_another")
    monkeypatch.setenv("HF_OIDC_RESOURCE", "x")
    found = token_source()
    assert found is not None
    assert found.variable == "HF_TOKEN"
    assert not saved.exists()


def test_a_job_gets_a_token_of_its_own(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_OIDC_RESOURCE", "somebody/something")
    expected = TokenSource(where="of this CI job", variable="HF_OIDC_RESOURCE", hides_saved=False)
    assert token_source() == expected
    saved.write_text(TOKEN, "utf-8")
    found = token_source()
    assert found is not None
    assert found.hides_saved


def test_every_token_that_is_read_is_concealed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved.write_text(OTHER, "utf-8")
    token_source()
    assert OTHER not in redaction.redact(f"it is {OTHER}.")
    monkeypatch.setenv("HF_TOKEN", OTHER[::-1])
    token_source()
    assert OTHER[::-1] not in redaction.redact(f"it is {OTHER[::-1]}.")


def test_a_notebook_may_have_a_token(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_auth, "is_google_colab", lambda: True)
    monkeypatch.setattr(_auth, "is_colab_enterprise", lambda: False)
    monkeypatch.setattr(_auth, "_IS_GOOGLE_COLAB_CHECKED", True)
    monkeypatch.setattr(_auth, "_GOOGLE_COLAB_SECRET", OTHER)
    assert token_source() == TokenSource(where="of this notebook", variable="", hides_saved=False)
    assert OTHER not in redaction.redact(f"it is {OTHER}.")
    assert not saved.exists()

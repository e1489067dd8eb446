"""Secrets of every shape that people really have, in every place where text leaves the program."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdsetup import redaction
from sdsetup.redaction import HIDDEN, RedactingFormatter, redact, redact_document, redacting_streams
from sdsetup.token_format import find_fault

SECRET = "hf_PlantedSecret0123456789"  # noqa: S105


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"token={SECRET}",
        f"Authorization: Bearer {SECRET}",
        "Bearer abcdefghijkl",
        f"b'Bearer {SECRET}\\n{SECRET}'",
        json.dumps(f"two\n{SECRET}"),
        f"https://user:{SECRET}@host/x",
        f"https://{SECRET}@host/x",
        f"https%3A//x%3Ftoken%3D{SECRET}",
        f"https://host/x?token={SECRET}&a=b",
        "https://host/x?access_token=PlantedSecret&a=b",
        "https://host/x?X-Amz-Signature=PlantedSecret",
        "socks5h://ann:PlantedSecret@proxy:1080",
        "http://ann:Planted@Secret@proxy:8080/",
        "http:/ann:PlantedSecret@host/owner/name",
        "http:\\ann:PlantedSecret@host\\owner",
        "hf_plantedsecretplantedsecret",
        "api_org_PlantedSecretPlantedSecret",
        "hf_oauth_eyPlanted.Secret-x",
        f"Proxy-Authorization: Basic {'UGxhbnRlZFNlY3JldA=='}",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    hidden = redact(text)
    assert HIDDEN in hidden
    for part in ("Planted", "planted", "Secret", "abcdefgh", "UGxhbn"):
        assert part not in hidden


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/owner/name@main",
        "packages/hf_models/unet/model.onnx",
        "hf_hub_download failed, hf_xet is missing, HF_HUB_OFFLINE is set",
        "/home/ann/hf_cache_2024/x",
        "http://127.0.0.1:8080/oauth/device?user_code=ABCD-1234",
        "sdsetup login --token-stdin",
        "a basic test, e-mail ann@example.org",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("HF_TOKEN", '"not-like-a-token"', ["not-like-a-token"]),
        (
            "HF_TOKEN",
            "first-line-1\nsecond-line-2",
            ["first-line-1", "second-line-2", "first-line-1second-line-2"],
        ),
        ("HF_TOKEN", "first-line-1\r\n'second-line-2'\n", ["first-line-1", "second-line-2"]),
        ("HUGGING_FACE_HUB_TOKEN", " spaced-token ", ["spaced-token"]),
        ("HF_OIDC_ID_TOKEN", "some.jwt.text", ["some.jwt.text"]),
        ("HTTPS_PROXY", "http://ann:pass/w@rd#1@proxy:8080", ["pass/w@rd#1"]),
        ("all_proxy", "socks5h://ann:p%40ssword@proxy:1080", ["p%40ssword", "p@ssword", "YW5uOnBAc3N3b3Jk"]),
        ("HTTPS_PROXY", "http://ann:pa%2fssword@proxy:1080", ["pa%2fssword", "pa/ssword"]),
        ("HF_TOKEN", "ünïcode-token", ["ünïcode-token", "%C3%BCn%C3%AFcode-token"]),
    ],
)
def test_what_the_environment_holds_is_hidden_in_any_text(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, parts: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    for part in parts:
        assert part not in redact(f"before {part} after"), part


@given(st.lists(st.text(min_size=6, max_size=20), min_size=1, max_size=3))
def test_a_secret_of_any_text_is_hidden_line_by_line(lines: list[str]) -> None:
    secret = "\n".join(line.strip() for line in lines)
    redaction.conceal(secret)
    for line in secret.splitlines():
        if len(line.strip().strip("'\"").strip()) >= 6 and line not in HIDDEN:
            assert line.strip().strip("'\"").strip() not in redact(f"<< {line} >>").replace(HIDDEN, "")


def test_saved_tokens_are_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "token").write_text("saved-one-1\nsaved-two-2\n", encoding="utf-8")
    (tmp_path / "stored_tokens").write_text(
        "[a]\nhf_token = stored-3\nrefresh_token=renew-4x\n", encoding="utf-8"
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    with redacting_streams():
        said = redact("saved-one-1 saved-two-2 stored-3 renew-4x")
    assert "-" not in said


def test_a_token_file_that_never_ends_is_no_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN_PATH", "/dev/zero")
    redaction.learn()


def test_streams_and_tracebacks_and_logs_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err, log = io.StringIO(), io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with redacting_streams():
        print("a", SECRET)  # noqa: T201
        try:
            raise ValueError(SECRET)
        except ValueError:
            sys.excepthook(*sys.exc_info())
        handler = logging.StreamHandler(log)
        handler.setFormatter(RedactingFormatter("%(message)s"))
        handler.emit(logging.LogRecord("x", 40, "", 0, "%s", (SECRET,), None))
    assert sys.stdout is out
    for stream in (out, err, log):
        assert "Planted" not in stream.getvalue()
        assert HIDDEN in stream.getvalue()


def test_a_stream_is_wrapped_once_and_none_stays_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with redacting_streams():
        assert sys.stdout is None
        wrapped = sys.stderr
        assert isinstance(wrapped, redaction.RedactingStream)
        with redacting_streams():
            assert sys.stderr is wrapped
        assert sys.stderr is wrapped


def test_secrets_of_six_letters_are_hidden_and_shorter_ones_are_words() -> None:
    redaction.conceal("sixsix")
    redaction.conceal("five5")
    redaction.conceal(None)
    redaction.conceal("")
    assert redact("sixsix five5") == f"{HIDDEN} five5"


def test_a_secret_within_another_leaves_nothing_of_it() -> None:
    for secret in ("abcdef", "abcdefgh", "xabcdefgh"):
        redaction.conceal(secret)
    assert redact("xabcdefgh abcdefgh abcdef") == f"{HIDDEN} {HIDDEN} {HIDDEN}"


CHILD = """
import os, sys
from sdsetup import redaction
if sys.argv[1] == "closed":
    sys.stderr = None
redaction.redact_process_output()
assert isinstance(sys.stdout, redaction.RedactingStream)
assert sys.stderr is None or isinstance(sys.stderr, redaction.RedactingStream)
assert (sys.stderr is None) == (sys.argv[1] == "closed")
print("printed", os.environ["HF_TOKEN"])
sys.stdout.flush()
os.write(1, f"written {os.environ['HF_TOKEN']}".encode())
"""


@pytest.mark.parametrize("errors", ["open", "closed"])
def test_all_output_of_a_child_is_redacted(errors: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, errors],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_TOKEN": "not-like-a-token"},
    )
    assert (done.stdout, done.stderr) == (f"printed {HIDDEN}\nwritten {HIDDEN}", "")


def test_documents_stay_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", '"quoted-ü-token"')
    document = {"a": ['"quoted-ü-token"', {"quoted-ü-token": 1}], "n": None, "f": 1.5}
    assert redact_document(document) == {"a": [HIDDEN, {HIDDEN: 1}], "n": None, "f": 1.5}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (SECRET, ""),
        (f"  {SECRET}\n", ""),
        (f"{SECRET}\n{SECRET}", "has two lines"),
        (f"{SECRET}\r\nx\r\ny", "has 3 lines"),
        (f'"{SECRET}"', "has quotes around it"),
        (f"'{SECRET}'", "has quotes around it"),
        (f"Bearer {SECRET}", "has words before it"),
        ("two words", "has spaces in it"),
        ("hf_ünïcode", "has letters that no token has"),
        ("hf_\x00x", "has letters that no token has"),
        (" ", "is empty"),
    ],
)
def test_what_is_wrong_with_a_token_is_said(value: str, fault: str) -> None:
    assert find_fault(value) == fault

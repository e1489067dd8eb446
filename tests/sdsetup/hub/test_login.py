from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from sdsetup import redaction
from sdsetup.errors import SetupError
from sdsetup.hub import login
from sdsetup.hub.token import TokenSource
from tests.hub_server import Account, Fault, HubServer, faults
from tests.hub_server.client import Machine
from tests.hub_server.here import asked_here

TOKEN = "hf_PastedTokenOfAnn"  # noqa: S105
OTHER = "hf_TokenInTheEnvironment"


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.accounts.append(Account(name="ann", token=TOKEN, organisations=("acme",)))
        hub.accounts.append(Account(name="robot", token=OTHER, label="ci", role="write"))
        yield hub


@pytest.fixture
def user(server: HubServer, tmp_path: Path) -> Iterator[Machine]:
    with Machine(endpoint=server.endpoint, home=tmp_path) as machine:
        yield machine


def test_a_token_from_standard_input_is_checked_and_saved_for_the_owner_alone(user: Machine) -> None:
    done = user.run("login", "--token-stdin", stdin=f"{TOKEN}\n")
    assert done.code == 0, done.stderr
    assert "Logged in as ann" in done.stderr
    saved = user.home / "hf" / "token"
    assert saved.read_text() == TOKEN
    if sys.platform != "win32":
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("token", ["", "   ", "hf_two words", "hf_ünïcode", "hf_unknownToTheHub"])
def test_a_bad_token_is_not_saved(user: Machine, token: str) -> None:
    done = user.run("login", "--token-stdin", stdin=f"{token}\n")
    assert done.code == 1
    assert "settings/tokens" in done.stderr
    assert not token.strip() or token not in done.stderr
    assert not (user.home / "hf" / "token").exists()


def test_a_browser_log_in_waits_for_the_person_and_keeps_the_means_to_renew(
    server: HubServer, user: Machine
) -> None:
    server.device_answer = {"access_token": TOKEN, "refresh_token": "renew-me-secret", "expires_in": 2592000}
    done = user.run("login")
    assert done.code == 0, done.stderr
    assert "ABCD-1234" in done.stderr
    assert f"{server.endpoint}/oauth/device?user_code=ABCD-1234" in done.stderr
    assert len(server.paths("POST /oauth/token")) == 3
    assert "renew-me-secret" in (user.home / "hf" / "stored_tokens").read_text()
    assert user.run("whoami").stdout == "ann\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("access_denied", "refused in the browser"),
        ("expired_token", "Nobody confirmed"),
        ("server_error", "refused the log-in (server_error)"),
    ],
)
def test_a_browser_log_in_that_fails_says_why(
    server: HubServer, user: Machine, answer: str, message: str
) -> None:
    server.device_answer = {"error": answer}
    done = user.run("login")
    assert done.code == 1
    assert message in done.stderr


def test_a_token_among_the_arguments_is_refused_and_not_repeated(user: Machine) -> None:
    done = user.run("login", TOKEN)
    assert done.code == 2
    assert TOKEN not in done.stderr
    assert "--token-stdin" in done.stderr


def test_whoami_tells_the_account_and_where_the_token_comes_from(user: Machine) -> None:
    assert "sdsetup login" in user.run("whoami").stderr
    user.run("login", "--token-stdin", stdin=TOKEN)
    saved = user.run("whoami", "--json")
    assert json.loads(saved.stdout) == {
        "name": "ann",
        "organisations": ["acme"],
        "token": {
            "name": "laptop",
            "role": "read",
            "source": f"saved in {user.home / 'hf' / 'token'}",
            "hides_saved": False,
        },
    }
    hidden = user.run("whoami", HF_TOKEN=OTHER)
    assert hidden.stdout == "robot\n"
    assert "in HF_TOKEN is in use and hides the saved one" in hidden.stderr


def test_logging_in_beside_a_token_in_the_environment_says_which_one_counts(user: Machine) -> None:
    done = user.run("login", "--token-stdin", stdin=TOKEN, HF_TOKEN=OTHER)
    assert "Logged in as robot; the token in HF_TOKEN is in use and hides the saved one" in done.stderr


def test_logging_out_forgets_every_saved_token_and_names_what_is_left(user: Machine) -> None:
    user.run("login", "--token-stdin", stdin=TOKEN)
    left = user.run("logout", HF_TOKEN=OTHER)
    assert "HF_TOKEN is set and still logs you in" in left.stderr
    assert not (user.home / "hf" / "token").exists()
    assert not (user.home / "hf" / "stored_tokens").exists()
    assert "no token is saved here" in user.run("logout").stderr


def test_logging_in_and_out_needs_no_git(user: Machine, tmp_path: Path) -> None:
    assert user.run("login", "--token-stdin", stdin=TOKEN, PATH=str(tmp_path)).code == 0
    assert user.run("logout", PATH=str(tmp_path)).code == 0


@pytest.fixture
def here(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """This process asks the Hub itself; nobody is logged in."""
    monkeypatch.setattr(redaction, "_known", set())
    with asked_here(server, tmp_path, monkeypatch):
        yield server


def shown(secret: str) -> bool:
    return secret in redaction.redact(f"it is {secret}.")


def test_an_account_of_few_words(here: HubServer) -> None:
    with pytest.raises(SetupError) as caught:
        login.whoami()
    assert caught.value.code == "hub.not-logged-in"
    login.login_with_token(f" {TOKEN} ")
    source = TokenSource(where=f"saved in {constants.HF_TOKEN_PATH}", variable="", hides_saved=False)
    for answer in ({"name": "ann"}, {"name": "ann", "orgs": None, "auth": {"accessToken": None}}):
        rewritten = faults.rewrite(lambda _, answer=answer: json.dumps(answer).encode())
        here.faults[:] = [Fault(where="GET /api/whoami-v2", action=rewritten, times=-1)]
        assert login.whoami() == login.Identity(
            name="ann", organisations=(), token_name="", role="", source=source
        )


def test_a_token_is_bad_only_where_the_hub_says_so(here: HubServer) -> None:
    unknown = "an unknown token"
    with pytest.raises(SetupError) as caught:
        login.login_with_token(unknown)
    assert caught.value.code == "hub.bad-token"
    unknown = unknown.replace(" ", "_")
    with pytest.raises(SetupError) as caught:
        login.login_with_token(unknown)
    assert caught.value.code == "hub.bad-token"
    assert not shown(unknown)
    here.faults.append(Fault(where="GET /api/whoami-v2", action=faults.status(503), times=-1))
    with pytest.raises(SetupError) as caught:
        login.login_with_token(TOKEN)
    assert caught.value.code == "hub.server"
    assert not Path(constants.HF_TOKEN_PATH).exists()


def test_what_a_browser_log_in_brings_is_concealed(here: HubServer) -> None:
    invitations: list[login.Invitation] = []
    access, renewal = "an-access-of-no-known-shape", "a-renewal-of-no-known-shape"
    here.accounts.append(Account(name="bea", token=access))
    here.device_answer = {"access_token": access, "refresh_token": renewal, "expires_in": 2592000}
    login.login_by_browser(invitations.append)
    page = f"{here.endpoint}/oauth/device?user_code=ABCD-1234"
    assert invitations == [login.Invitation(page=page, code="ABCD-1234", valid_seconds=60)]
    assert not any(map(shown, ("device-code-secret", access, renewal)))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("access_denied", "hub.login-refused"),
        ("expired_token", "hub.login-expired"),
        ("server_error", "hub.login-refused"),
    ],
)
def test_each_refusal_of_a_browser_log_in_has_its_code(here: HubServer, answer: str, code: str) -> None:
    here.device_answer = {"error": answer}
    with pytest.raises(SetupError) as caught:
        login.login_by_browser(lambda _: None)
    assert caught.value.code == code


def test_a_hub_that_gives_no_code_is_an_error_of_the_hub(here: HubServer) -> None:
    here.faults.append(Fault(where="POST /oauth/device", action=faults.status(503), times=-1))
    with pytest.raises(SetupError) as caught:
        login.login_by_browser(lambda _: None)
    assert caught.value.code == "hub.server"


def test_logging_out_says_what_still_counts(
    here: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert login.logout() is None
    (tmp_path / "token").write_text(TOKEN, "utf-8")
    assert login.logout() is None
    assert not (tmp_path / "token").exists()
    monkeypatch.setenv("HF_TOKEN", OTHER)
    left = login.logout()
    assert left is not None
    assert left.variable == "HF_TOKEN"
    assert here.requests == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that nobody can delete")
def test_a_token_that_cannot_be_deleted_is_named(here: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/proc/version")
    with pytest.raises(SetupError) as caught:
        login.logout()
    assert caught.value.code == "hub.storage"
    assert caught.value.hint == "Delete /proc/version"
    assert here.requests == []

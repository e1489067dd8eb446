"""The Hub behind a SOCKS proxy, for the client and for the doctor: a real proxy on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sdsetup.bootstrap.socks_server import SocksServer, socks_server
from tests.sdsetup.doctor.small_hub import SmallHub, serving

ROOT = Path(__file__).parents[3]
# A name that only the proxy can resolve, so that nothing passes it by.
ENDPOINT = "http://hub.invalid:8080"


@pytest.fixture
def socks() -> Iterator[SocksServer]:
    with socks_server() as server, serving(SmallHub()) as hub:
        hub.tokens["hf_reader0123456789"] = "read"
        server.to = ("127.0.0.1", hub.server_address[1])
        yield server


def _run(home: Path, proxy: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith("HF_")
    }
    variables = {
        **kept, "PYTHONPATH": str(ROOT), "HF_HOME": str(home), "HF_ENDPOINT": ENDPOINT, "ALL_PROXY": proxy,
        "HF_TOKEN": "hf_reader0123456789", **changes,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "sdsetup", *arguments], env=variables, cwd=home,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["socks5h", "socks", "socks4a"])
def test_the_client_goes_through(scheme: str, socks: SocksServer, tmp_path: Path) -> None:
    answer = _run(tmp_path, f"{scheme}://127.0.0.1:{socks.port}", "whoami")
    assert answer.returncode == 0, answer.stderr
    assert "ann" in answer.stdout + answer.stderr
    assert ("hub.invalid", 8080) in socks.asked


@pytest.mark.parametrize("scheme", ["socks5h", "socks", "socks4a"])
def test_the_doctor_goes_through_and_offers_to_cut_nobody_off(
    scheme: str, socks: SocksServer, tmp_path: Path
) -> None:
    answer = _run(tmp_path, f"{scheme}://127.0.0.1:{socks.port}", "doctor", "--only", "hub", "--json")
    found: dict[str, Any] = {each["id"]: each for each in json.loads(answer.stdout)["findings"]}
    assert found["hub.reachable"]["status"] == "ok", found["hub.reachable"]
    assert found["hub.proxy"]["status"] == "ok"
    assert "ALL_PROXY" in found["hub.proxy"]["evidence"]
    assert found["hub.token"]["status"] == "ok"


def test_a_password_of_the_proxy_is_sent_and_never_shown(socks: SocksServer, tmp_path: Path) -> None:
    socks.login = ("ann", "secretword")
    proxy = f"socks5h://ann:secretword@127.0.0.1:{socks.port}"
    for arguments in (("whoami",), ("doctor", "--only", "hub", "--json")):
        answer = _run(tmp_path, proxy, *arguments)
        assert answer.returncode == 0, answer.stderr
        assert "secretword" not in answer.stdout + answer.stderr


def test_a_proxy_of_an_unknown_kind_is_one_message_without_its_password(tmp_path: Path) -> None:
    answer = _run(tmp_path, "gopher://ann:secretword@127.0.0.1:70", "whoami")
    assert answer.returncode == 1
    assert "ALL_PROXY" in answer.stderr
    assert "secretword" not in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_proxy_that_is_off_is_named_by_the_doctor(tmp_path: Path) -> None:
    answer = _run(tmp_path, "socks5h://127.0.0.1:9", "doctor", "--only", "hub", "--json")
    found: dict[str, Any] = {each["id"]: each for each in json.loads(answer.stdout)["findings"]}
    assert found["hub.proxy"]["status"] == "failure"
    assert "ALL_PROXY" in found["hub.proxy"]["evidence"]

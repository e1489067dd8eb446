"""Mirrors, proxies and what a token must never be seen in."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hub_server import Account, Fault, HubServer, Repo, faults
from tests.hub_server.checkpoint import NEEDED, checkpoint_files
from tests.hub_server.client import Machine

REPO = "acme/tiny"
TOKEN = "hf_LookForMeEverywhere0123456789"  # noqa: S105


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer(accounts=[Account(name="ann", token=TOKEN)]) as hub:
        hub.add(Repo(repo_id=REPO, files=checkpoint_files()))
        yield hub


@pytest.fixture
def proxy(server: HubServer) -> Iterator[tuple[str, list[str]]]:
    """A proxy that alone knows where ``hub.invalid`` is; lists the hosts that were asked for."""
    hosts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            asked = urlsplit(self.path)
            hosts.append(asked.netloc)
            target = urlsplit(server.endpoint).netloc if asked.hostname == "hub.invalid" else asked.netloc
            upstream = http.client.HTTPConnection(target, timeout=20)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            upstream.request(self.command, f"{asked.path}?{asked.query}", headers=headers)
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())
            upstream.close()

        do_GET = do_HEAD = _forward  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front.daemon_threads = True
    threading.Thread(target=front.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{front.server_address[1]}", hosts
    front.shutdown()
    front.server_close()


def test_a_proxy_carries_everything(server: HubServer, proxy: tuple[str, list[str]], tmp_path: Path) -> None:
    address, hosts = proxy
    with Machine(endpoint="http://hub.invalid", home=tmp_path) as user:
        done = user.run_cold("download", REPO, HTTP_PROXY=address, NO_PROXY="", no_proxy="")
    assert done.code == 0, done.stderr
    assert all((Path(done.stdout.strip()) / name).is_file() for name in NEEDED)
    assert set(hosts) == {"hub.invalid", urlsplit(server.cdn).netloc}


def test_a_proxy_that_is_not_there_is_named_as_the_cause(tmp_path: Path) -> None:
    with Machine(endpoint="http://hub.invalid", home=tmp_path) as user:
        done = user.run_cold("download", REPO, HTTP_PROXY="http://127.0.0.1:9", NO_PROXY="", no_proxy="")
    assert done.code == 1
    assert "http://hub.invalid cannot be reached" in done.stderr
    assert "HTTP_PROXY" in done.stderr


@pytest.mark.parametrize("fails", [False, True])
def test_no_token_is_seen_at_any_level_of_talk(server: HubServer, tmp_path: Path, fails: bool) -> None:
    server.faults.append(Fault(where="GET /cdn/*", action=faults.drip(2**16, 0.02, 3_000_000), times=-1))
    if fails:
        server.faults.append(Fault(where="HEAD *", action=faults.status(500, {}, TOKEN.encode()), times=-1))
    with Machine(endpoint=server.endpoint, home=tmp_path) as user:
        process = user.start("download", REPO, "--json", HF_TOKEN=TOKEN, SDSETUP_DEBUG="1", HF_DEBUG="1")
        seen = []
        while process.poll() is None:
            seen += [path.read_bytes() for path in Path("/proc").glob(f"{process.pid}/cmdline")]
            seen += [path.read_bytes() for path in Path("/proc").glob(f"{process.pid}/task/*/comm")]
            time.sleep(0.05)
            if len(seen) > 5000:
                break
        out, err = process.communicate()
    assert process.returncode == int(fails)
    assert "DEBUG huggingface_hub" in err
    assert TOKEN not in out + err
    assert all(TOKEN.encode() not in text for text in seen)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert all(TOKEN.encode() not in path.read_bytes() for path in written)


def test_a_token_that_breaks_a_request_is_not_repeated(server: HubServer, tmp_path: Path) -> None:
    odd = "hf_tokénWithAnAccent"
    with Machine(endpoint=server.endpoint, home=tmp_path) as user:
        for debug in ("0", "1"):
            done = user.start("download", REPO, HF_TOKEN=odd, SDSETUP_DEBUG=debug)
            out, err = done.communicate(timeout=60)
            assert done.returncode == 1
            assert odd not in out + err
            assert repr(odd)[1:-1] not in out + err
            assert "The token in HF_TOKEN has letters that no token has" in err

"""A hub on loopback that answers what a test tells it to."""

import contextlib
import json
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    server: "SmallHub"

    def _answer(self) -> None:
        hub = self.server
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.path == "/api/whoami-v2":
            role = hub.tokens.get(token)
            body = {"name": "ann", "auth": {"accessToken": {"role": role}}} if role else {"error": "Invalid"}
            self._send(200 if role else 401, body)
            return
        model = self.path.removeprefix("/").partition("/resolve/")[0]
        code = hub.models.get(model, "RepoNotFound")
        if code:
            self._send(403 if code == "GatedRepo" else 404, {}, {"X-Error-Code": code})
        else:
            self._send(307, {}, {"Location": f"{hub.data}/{model}"})

    do_GET = do_HEAD = _answer  # noqa: N815 - http.server's own names

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response_only(status)
        self.send_header("Date", formatdate(self.date_time() + self.server.clock_ahead, usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def date_time(self) -> float:
        import time

        return time.time()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
        pass


class SmallHub(ThreadingHTTPServer):
    """Tokens with their kind, and models with the error code that keeps them; None lets them be read."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens: dict[str, str] = {}
        self.models: dict[str, str | None] = {}
        self.clock_ahead = 0.0
        self.data = self.address

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

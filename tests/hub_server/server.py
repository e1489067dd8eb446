"""The server: routes, access rules and contents of the Hub, on two origins as the real one has."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_server import xet
from tests.hub_server.faults import Fault
from tests.hub_server.repos import Account, Content, Repo

_PAGE_OF_TREE = 5


class Broken(Exception):  # noqa: N818
    """The connection was cut on purpose."""


@dataclass
class Body:
    """How the content of an answer is sent; faults change it."""

    slow: tuple[int, float, int] | None = None
    flipped: int | None = None
    padding: int = 0
    ignores_range: bool = False
    chunked_until: int | None = None
    _limit: int | None = None
    _at_limit: Callable[[socket.socket], object] | None = None

    def stop_after(self, count: int, what: Callable[[socket.socket], object]) -> None:
        self._limit, self._at_limit = count, what

    def send(self, exchange: Exchange, content: Content, start: int, end: int) -> None:
        sent = 0
        position = start
        for whole in content.pieces(start, end):
            for piece in self._cut(whole, sent):
                if self._limit is not None and sent + len(piece) > self._limit:
                    exchange.write(self._altered(piece[: self._limit - sent], position))
                    exchange.stream.flush()
                    assert self._at_limit is not None
                    self._at_limit(exchange.connection)
                    raise Broken
                exchange.write(self._altered(piece, position))
                sent += len(piece)
                position += len(piece)
        exchange.write(b"\0" * self.padding)

    def _cut(self, piece: bytes, sent: int) -> Iterable[bytes]:
        if self.slow is None or sent >= self.slow[2]:
            yield piece
            return
        size, pause, _ = self.slow
        for begin in range(0, len(piece), size):
            time.sleep(pause)
            yield piece[begin : begin + size]

    def _altered(self, piece: bytes, position: int) -> bytes:
        if self.flipped is None or not position <= self.flipped < position + len(piece):
            return piece
        at = self.flipped - position
        return piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    origin: str


class Exchange:
    """One request and its answer."""

    def __init__(self, handler: BaseHTTPRequestHandler, hub: HubServer, origin: str) -> None:
        self.hub = hub
        self.origin = origin
        self.method = handler.command
        self.url = urlsplit(handler.path)
        self.query = parse_qs(self.url.query)
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.connection = handler.connection
        self.stream = handler.wfile
        self.body = Body()
        self.omitted: frozenset[str] = frozenset()
        self.altered: dict[str, str] = {}
        self.rewritten: Callable[[bytes], bytes] = bytes
        self._handler = handler
        length = int(self.headers.get("content-length", "0"))
        self.form = parse_qs(handler.rfile.read(length).decode()) if length else {}

    def write(self, data: bytes) -> None:
        self.stream.write(data)
        with self.hub.counting:
            self.hub.sent_bytes += len(data)

    def answer(self, code: int, headers: dict[str, str], body: bytes = b"") -> None:
        body = self.rewritten(body)
        self.head(code, {**headers, "Content-Length": str(len(body))})
        if self.method != "HEAD":
            self.stream.write(body)

    def json(self, document: Any, headers: dict[str, str] | None = None) -> None:
        self.answer(
            200, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode()
        )

    def refuse(self, code: int, error_code: str, message: str) -> None:
        headers = {"X-Error-Message": message, "X-Request-Id": "loopback"}
        if error_code:
            headers["X-Error-Code"] = error_code
        self.answer(code, headers, json.dumps({"error": message}).encode())

    def head(self, code: int, headers: dict[str, str]) -> None:
        self._handler.send_response(code)
        for name, value in {**headers, **self.altered}.items():
            if name.lower() not in self.omitted:
                self._handler.send_header(name, value)
        self._handler.end_headers()

    def content(self, content: Content, headers: dict[str, str]) -> None:
        """Answer with a file, or the asked range of it."""
        start, end, code = 0, content.size, 200
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if match and not self.body.ignores_range:
            start = int(match[1])
            end = min(int(match[2]) + 1, content.size) if match[2] else content.size
            if start >= content.size:
                return self.answer(416, {"Content-Range": f"bytes */{content.size}"})
            code = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{content.size}"}
        headers = {**headers, "Accept-Ranges": "bytes"}
        if self.body.chunked_until is not None:
            # Closing is all that marks the end: nobody can tell that it came too early.
            self.head(code, {**headers, "Connection": "close"})
            self._handler.close_connection = True
            end = min(end, start + self.body.chunked_until)
        else:
            self.head(code, {**headers, "Content-Length": str(end - start + self.body.padding)})
        if self.method != "HEAD":
            self.body.send(self, content, start, end)
        return None


@dataclass
class HubServer:
    """Serves repositories until the ``with`` block ends.

    Attributes:
        accounts: Who may log in; tokens that no account has are refused.
        faults: What goes wrong; may be changed while the server runs.
        requests: What came, in order.
        sent_bytes: Bytes of contents that left the server.
        closing: Set when the server ends; silent requests wake up then.
    """

    accounts: list[Account] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Logged] = field(default_factory=list)
    sent_bytes: int = 0
    pending_polls: int = 2
    device_answer: dict[str, Any] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)
    counting: threading.Lock = field(default_factory=threading.Lock)
    repos: dict[str, Repo] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._servers = [self._serve("hub"), self._serve("cdn")]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _serve(self, origin: str) -> ThreadingHTTPServer:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 2**16

            def _any(self) -> None:
                exchange = Exchange(self, hub, origin)
                try:
                    hub._answer(exchange)
                    self.wfile.flush()
                except (Broken, OSError, ValueError):
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = _any  # noqa: N815

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: clients that go away are part of the tests."""

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def add(self, repo: Repo) -> Repo:
        self.repos[repo.repo_id] = repo
        return repo

    def paths(self, pattern: str) -> list[str]:
        """Paths of the requests so far whose ``METHOD path`` matches a regular expression."""
        return [entry.path for entry in self.requests if re.search(pattern, f"{entry.method} {entry.path}")]

    def _answer(self, exchange: Exchange) -> None:
        path = exchange.url.path
        self.requests.append(
            Logged(method=exchange.method, path=path, headers=exchange.headers, origin=exchange.origin)
        )
        for fault in self.faults:
            if fault.claims(f"{exchange.method} {path}") and fault.action(exchange):
                return None
        for pattern, route in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                return route(self, exchange, *(unquote(group) for group in match.groups()))
        exchange.refuse(404, "", "Page not found")
        return None

    # Access

    def _account(self, exchange: Exchange) -> Account | None:
        given = exchange.headers.get("authorization", "").removeprefix("Bearer ")
        return next((account for account in self.accounts if account.token == given), None)

    def _may_see(self, exchange: Exchange, repo_id: str) -> Repo | None:
        """Find a repository whose description this request may see, or refuse."""
        account = self._account(exchange)
        if "authorization" in exchange.headers and account is None:
            exchange.refuse(401, "", "Invalid credentials in Authorization header")
            return None
        repo = self.repos.get(repo_id)
        if repo is None or (repo.private and (account is None or account.name not in repo.readers)):
            if account is None:
                exchange.refuse(401, "RepoNotFound", "Invalid username or password.")
            else:
                exchange.refuse(404, "RepoNotFound", "Repository not found")
            return None
        if repo.disabled:
            exchange.refuse(403, "", "Access to this resource is disabled.")
            return None
        if repo.moved_to is not None:
            target = exchange.url.path.replace(repo_id, repo.moved_to, 1)
            exchange.answer(307, {"Location": f"{target}?{exchange.url.query}"})
            return None
        return repo

    def _may_read(self, exchange: Exchange, repo_id: str) -> Repo | None:
        """Find a repository whose files this request may have, or refuse."""
        repo = self._may_see(exchange, repo_id)
        if repo is None or not repo.gated:
            return repo
        account = self._account(exchange)
        if account is not None and account.name in repo.readers:
            return repo
        page = f"{self.endpoint}/{repo_id}"
        if account is None:
            exchange.refuse(401, "GatedRepo", f"Access to model {repo_id} is restricted. Please log in.")
        else:
            default = f"Access to model {repo_id} is restricted. Visit {page} to ask for access."
            exchange.refuse(403, "GatedRepo", repo.gated_answer or default)
        return None

    # Routes

    def _search(self, exchange: Exchange) -> None:
        word = exchange.query.get("search", [""])[0].lower()
        author = exchange.query.get("author", [""])[0]
        found = [
            name
            for name, repo in self.repos.items()
            if word in name.lower() and name.startswith(f"{author}/" if author else "") and not repo.private
        ]
        exchange.json([{"id": name, "modelId": name} for name in found])

    def _info(self, exchange: Exchange, repo_id: str, revision: str = "main") -> None:
        repo = self._may_see(exchange, repo_id)
        if repo is None:
            return None
        commit = repo.find(revision)
        if commit is None:
            return exchange.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings: list[dict[str, Any]] = []
        for name, content in repo.commits[commit].items():
            entry: dict[str, Any] = {"rfilename": name}
            if "blobs" in exchange.query:
                entry |= {"size": content.size, "blobId": content.git_sha1}
                if repo.is_large(name):
                    entry["lfs"] = {"size": content.size, "sha256": content.sha256, "pointerSize": 134}
            siblings.append(entry)
        exchange.json(
            {
                "id": repo_id,
                "sha": commit,
                "private": repo.private,
                "gated": repo.gated,
                "disabled": repo.disabled,
                "tags": [f"license:{repo.licence}"],
                "cardData": {"license": repo.licence},
                "siblings": siblings,
            }
        )
        return None

    def _tree(self, exchange: Exchange, repo_id: str, revision: str) -> None:
        repo = self._may_see(exchange, repo_id)
        if repo is None:
            return None
        commit = repo.find(revision)
        if commit is None:
            return exchange.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        entries: list[dict[str, Any]] = []
        for name, content in repo.commits[commit].items():
            entry: dict[str, Any] = {
                "type": "file",
                "path": name,
                "size": content.size,
                "oid": content.git_sha1,
            }
            if repo.is_large(name):
                entry["lfs"] = {"oid": content.sha256, "size": content.size, "pointerSize": 134}
            entries.append(entry)
        first = int(exchange.query.get("cursor", ["0"])[0])
        more = first + _PAGE_OF_TREE
        link = f"<{self.endpoint}{exchange.url.path}?recursive=True&cursor={more}>"
        exchange.json(entries[first:more], {"Link": f'{link}; rel="next"'} if more < len(entries) else None)
        return None

    def _refs(self, exchange: Exchange, repo_id: str) -> None:
        repo = self._may_see(exchange, repo_id)
        if repo is not None:
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
                for name, commit in repo.branches.items()
            ]
            exchange.json({"branches": branches, "converts": [], "tags": []})

    def _auth_check(self, exchange: Exchange, repo_id: str) -> None:
        if self._may_read(exchange, repo_id) is not None:
            exchange.json({})

    def _resolve(self, exchange: Exchange, repo_id: str, revision: str, name: str) -> None:
        repo = self._may_read(exchange, repo_id)
        if repo is None:
            return None
        commit = repo.find(revision)
        if commit is None:
            return exchange.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = repo.commits[commit].get(name)
        if content is None:
            return exchange.refuse(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{repo.etag(commit, name)}"'}
        if not repo.is_large(name):
            return exchange.content(content, headers)
        headers |= {
            "X-Linked-Etag": f'"{content.sha256}"',
            "X-Linked-Size": str(content.size),
            "Location": f"{self.cdn}/cdn/{repo_id}/{content.sha256}?X-Amz-Signature=0123456789abcdef",
        }
        if repo.xet:
            route = f"{self.endpoint}/api/models/{repo_id}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": content.sha256, "Link": f'<{route}>; rel="xet-auth"'}
        exchange.answer(302, headers)
        return None

    def _cdn(self, exchange: Exchange, repo_id: str, sha256: str) -> None:
        if "authorization" in exchange.headers:
            return exchange.answer(400, {}, b"Only one auth mechanism allowed")
        for tree in self.repos[repo_id].commits.values():
            for content in tree.values():
                if content.sha256 == sha256:
                    return exchange.content(content, {"ETag": f'"{sha256[:32]}"'})
        exchange.answer(404, {})
        return None

    def _xet_token(self, exchange: Exchange, repo_id: str, _commit: str) -> None:
        if self._may_read(exchange, repo_id) is not None:
            until = int(time.time()) + 3600
            address = f"{self.cdn}/cas/{repo_id}"
            headers = {
                "X-Xet-Cas-Url": address,
                "X-Xet-Access-Token": "xet-token",
                "X-Xet-Token-Expiration": str(until),
            }
            exchange.json({"casUrl": address, "accessToken": "xet-token", "exp": until}, headers)

    def _cas(self, exchange: Exchange, repo_id: str, rest: str) -> None:
        xet.answer(exchange, self.repos[repo_id], f"{self.cdn}/cas/{repo_id}", rest)

    def _whoami(self, exchange: Exchange) -> None:
        account = self._account(exchange)
        if account is None:
            return exchange.refuse(401, "", "Invalid credentials in Authorization header")
        exchange.json(
            {
                "type": "user",
                "name": account.name,
                "orgs": [{"name": name} for name in account.organisations],
                "auth": {
                    "type": "access_token",
                    "accessToken": {"displayName": account.label, "role": account.role},
                },
            }
        )
        return None

    def _device(self, exchange: Exchange) -> None:
        exchange.json(
            {
                "device_code": "device-code-secret",
                "user_code": "ABCD-1234",
                "verification_uri": f"{self.endpoint}/oauth/device",
                "verification_uri_complete": f"{self.endpoint}/oauth/device?user_code=ABCD-1234",
                "interval": 0,
                "expires_in": 60,
            }
        )

    def _token(self, exchange: Exchange) -> None:
        if self.pending_polls > 0:
            self.pending_polls -= 1
            return exchange.answer(400, {}, b'{"error": "authorization_pending"}')
        code = 400 if "error" in self.device_answer else 200
        exchange.answer(code, {"Content-Type": "application/json"}, json.dumps(self.device_answer).encode())
        return None


_REPO = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, Callable[..., None]]] = [
    (r"/api/models", HubServer._search),
    (rf"/api/models/{_REPO}", HubServer._info),
    (rf"/api/models/{_REPO}/revision/([^/]+)", HubServer._info),
    (rf"/api/models/{_REPO}/tree/([^/]+)", HubServer._tree),
    (rf"/api/models/{_REPO}/refs", HubServer._refs),
    (rf"/api/models/{_REPO}/auth-check", HubServer._auth_check),
    (rf"/api/models/{_REPO}/xet-read-token/([^/]+)", HubServer._xet_token),
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", HubServer._resolve),
    (rf"/cdn/{_REPO}/([0-9a-f]+)", HubServer._cdn),
    (rf"/cas/{_REPO}/(.+)", HubServer._cas),
    (r"/api/whoami-v2", HubServer._whoami),
    (r"/oauth/device", HubServer._device),
    (r"/oauth/token", HubServer._token),
]

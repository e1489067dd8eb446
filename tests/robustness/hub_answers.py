"""Mutated answers of the Hub, and networks that stall, through download and plan."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.hub_server import Fault, HubServer, Repo, faults
from tests.hub_server.checkpoint import NEEDED, checkpoint_files
from tests.robustness.checkpoints import end_of
from tests.robustness.materials import Materials, clear
from tests.robustness.mutations import VALUES
from tests.robustness.search import Figures, search
from tests.robustness.user import LawBrokenError

_WHERE = ("GET /api/models/acme/tiny*", "HEAD /acme/tiny/*", "GET /acme/tiny/*", "GET /cdn/*")
_HEADERS = ("ETag", "X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "Location", "Content-Range", "Link")
_NAMES = ("../../evil", "/etc/evil", "a/../../evil", "C:\\evil", "x\0y", "", ".", "..", "unet", "a" * 300)
Case = tuple[str, str, Any]


def answers(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Download a small repository whose answers are wrong in one place."""
    figures = Figures(attack="Hub: download, plan")
    files = checkpoint_files(unet_bytes=100_000)
    with HubServer() as hub, materials.user("hub", endpoint=hub.endpoint) as user:
        hub.add(Repo(repo_id="acme/tiny", files=files))
        user.hang_seconds = 120  # five attempts, each a second of silence

        def check(case: Case) -> None:
            clear([user.home / "hf"])
            hub.faults[:] = [Fault(where=case[0], action=_action(case), times=case[2][0])]
            verb = ("download",) if case[2][0] % 2 else ("convert", "--dry-run", "--target", "cpu")
            try:
                with user.writing_only():
                    done = user.run(verb[0], "acme/tiny", *verb[1:])
            finally:
                hub.faults.clear()
            if verb[0] == "download" and done.code == 0:
                folder = user.storage("acme/tiny") / "snapshots"
                for name in NEEDED:
                    found = [path for path in folder.glob(f"*/{name}") if path.is_file()]
                    if not found or any(path.read_bytes() != files[name] for path in found):
                        raise LawBrokenError(f"a download is called whole, and {name} is not")
            figures.count(end_of(done))

        search(_cases(), check, figures, until=until, seed=seed, most=most)
    figures.slowest_seconds = user.slowest_seconds
    return figures


def _cases() -> st.SearchStrategy[Case]:
    times = st.sampled_from((1, 2, -1))
    values = st.one_of(st.sampled_from(VALUES), st.sampled_from(_NAMES))
    what = st.one_of(
        st.tuples(st.just("json"), st.tuples(times, st.integers(0, 200), values)),
        st.tuples(st.just("body"), st.tuples(times, st.binary(max_size=40))),
        st.tuples(st.just("status"), st.tuples(times, st.sampled_from((204, 301, 404, 418, 429, 500, 503)))),
        st.tuples(
            st.just("header"),
            st.tuples(
                times, st.sampled_from(_HEADERS), st.sampled_from(("", "x", "-1", "9" * 30, '"../../evil"'))
            ),
        ),
        st.tuples(st.just("cut"), st.tuples(times, st.integers(0, 50_000))),
        st.tuples(st.just("stall"), st.tuples(st.sampled_from((1, 2)), st.integers(0, 50_000))),
        st.tuples(st.just("flip"), st.tuples(times, st.integers(0, 50_000))),
        st.tuples(st.just("pad"), st.tuples(times, st.integers(1, 1000))),
    )
    return st.tuples(st.sampled_from(_WHERE), what).map(lambda each: (each[0], each[1][0], each[1][1]))


def _action(case: Case) -> faults.Action:
    _, kind, details = case
    match kind:
        case "json":
            return faults.rewrite(lambda body: changed(body, details[1], details[2]))
        case "body":
            return faults.status(200, {"Content-Type": "application/json"}, details[1])
        case "status":
            return faults.status(details[1])
        case "header":
            return faults.alter_headers({details[1]: details[2]})
        case "cut":
            return faults.reset(details[1])
        case "stall":
            return faults.stall(details[1], 3)
        case "flip":
            return faults.flip(details[1])
        case _:
            return faults.pad(details[1])


def changed(body: bytes, place: int, value: Any) -> bytes:
    """Replace one of a JSON document's values."""
    try:
        document = json.loads(body)
    except ValueError:
        return body
    places = list(_places(document))
    if not places:
        return body
    holder, key = places[place % len(places)]
    holder[key] = value
    return json.dumps(document).encode()


def _places(document: Any) -> list[tuple[Any, Any]]:
    items = document.items() if isinstance(document, dict) else enumerate(document)
    found: list[tuple[Any, Any]] = []
    for key, value in items:
        found.append((document, key))
        if isinstance(value, (dict, list)):
            found += _places(value)
    return found

"""Files from xet by its real client: whole, in part, given up halfway, refused."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from tests.hub_server import Fault, HubServer, Repo, faults
from tests.hub_server.client import Machine

WEIGHTS = "unet/weights.safetensors"
CONTENT = random.Random(5).randbytes(3_000_000)
READ = """
import hashlib, json, sys, threading, time
from huggingface_hub.utils import XetFileData, build_hf_headers
from sdsetup.hub import session, xet
session.api()
data = XetFileData(file_hash={hash!r}, refresh_route={route!r})
def pieces(start, end):
    return xet.pieces(data, build_hf_headers(), {size}, start, end)
def is_left():
    return any("pump" in repr(getattr(each, "_target", None)) for each in threading.enumerate())
answers = {{"installed": xet.is_installed(), "parts": []}}
for start, end in {parts!r}:
    try:
        answers["parts"].append(hashlib.sha256(b"".join(pieces(start, end))).hexdigest())
    except xet.XetFailed as error:
        answers["parts"].append(str(error))
if {halfway}:
    stream = pieces(0, None)
    answers["first"] = len(next(stream))
    stream.close()
    until = time.monotonic() + 20
    while is_left() and time.monotonic() < until:
        time.sleep(0.02)
    answers["left"] = is_left()
print(json.dumps(answers))
"""


def read(
    hub: HubServer, machine: Machine, name: str, *parts: tuple[int, int | None], halfway: bool = False
) -> dict[str, Any]:
    """Read parts of the weights of a repository in a process of its own."""
    repo = hub.add(Repo(repo_id=f"acme/{name}", files={WEIGHTS: CONTENT}, xet=True))
    script = READ.format(
        hash=repo.etag(repo.head, WEIGHTS),
        route=f"{hub.endpoint}/api/models/acme/{name}/xet-read-token/{repo.head}",
        size=len(CONTENT),
        parts=list(parts),
        halfway=halfway,
    )
    answers: dict[str, Any] = json.loads(machine.run_script(script))
    return answers


def test_parts_are_read_from_any_byte(hub: HubServer, machine: Machine) -> None:
    parts = [(0, None), (70_001, None), (5, 6), (100_000, 2_000_000)]
    answers = read(hub, machine, "xet-parts", *parts, halfway=True)
    assert answers["installed"]
    assert answers["parts"] == [hashlib.sha256(CONTENT[start:end]).hexdigest() for start, end in parts]
    assert 0 < answers["first"] <= len(CONTENT)
    assert not answers["left"]
    asked = [each for each in hub.requests if "/cas/acme/xet-parts/v1/" in each.path]
    assert asked
    assert {each.headers.get("authorization") for each in asked} == {"Bearer xet-token"}


def test_a_refusal_is_named_by_the_client_s_error(hub: HubServer, machine: Machine) -> None:
    hub.faults.append(Fault(where="GET /api/models/acme/xet-refused/*", action=faults.status(403), times=-1))
    (said,) = read(hub, machine, "xet-refused", (0, None))["parts"]
    assert said.startswith("xet: ")
    assert said.endswith("Error")


SOURCE = """
import hashlib, json
from sdsetup import hub
from sdsetup.hub.streams import Source
from sdsetup.hub.xet import XetFailed
model = hub.resolve("acme/{name}")
heard, parts = [], []
source = Source(model, lambda event: heard.append(event.text))
for start, end in ((0, None), (70_001, 2_000_000)):
    try:
        with source.open(model.files[0], start, end) as pieces:
            parts.append(hashlib.sha256(b"".join(pieces)).hexdigest())
    except XetFailed:
        parts.append("failed")
print(json.dumps([parts, heard]))
"""


def test_a_source_reads_over_xet_and_after_a_failure_over_http(hub: HubServer, machine: Machine) -> None:
    wanted = [hashlib.sha256(part).hexdigest() for part in (CONTENT, CONTENT[70_001:2_000_000])]
    hub.add(Repo(repo_id="acme/xet-source", files={WEIGHTS: CONTENT}, xet=True))
    parts, heard = json.loads(machine.run_script(SOURCE.format(name="xet-source")))
    assert (parts, heard) == (wanted, [])
    assert hub.paths("^GET .*/cas/acme/xet-source/")
    assert not hub.paths("^GET .*/cdn/acme/xet-source/")
    hub.add(Repo(repo_id="acme/xet-broken", files={WEIGHTS: CONTENT}, xet=True))
    hub.faults.append(Fault(where="GET /cas/acme/xet-broken/*", action=faults.status(403), times=-1))
    parts, heard = json.loads(machine.run_script(SOURCE.format(name="xet-broken")))
    assert parts == ["failed", wanted[1]]
    (said,) = heard
    assert said.startswith("xet")
    assert said.endswith("; continuing over plain HTTP.")
    assert hub.paths("^GET .*/cdn/acme/xet-broken/")


def test_xet_can_be_switched_off(machine: Machine) -> None:
    script = "from sdsetup.hub import xet; print(xet.is_installed())"
    assert machine.run_script(script, HF_HUB_DISABLE_XET="1") == "False\n"

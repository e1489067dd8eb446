from __future__ import annotations

import hashlib
import random

from tests.hub_server import Fault, HubServer, Repo, faults
from tests.hub_server.client import Machine

SIZE = 30_000_019
CONTENT = random.Random(3).randbytes(SIZE)
# Four threads read every byte of the file in uneven pieces; prints the hash of each thread's share.
READ_ALL = """
import hashlib, sys
from concurrent.futures import ThreadPoolExecutor
from sdsetup import hub
from sdsetup.hub.remote_storage import HubStorage
model = hub.resolve("acme/{repo}")
storage = HubStorage(model, model.files)
name = "unet/diffusion_pytorch_model.safetensors"
size = storage.size_bytes(name)
def share(first):
    digest = hashlib.sha256()
    reader = storage.open(name)
    for start in range(first * 1_000_003, size, 4 * 1_000_003):
        buffer = bytearray(min(1_000_003, size - start))
        reader.read_into(memoryview(buffer), start)
        digest.update(buffer)
    return digest.hexdigest()
with ThreadPoolExecutor(4) as pool:
    print(*pool.map(share, range(4)))
print(storage.read("unet/config.json").decode(), storage.version("unet/config.json"))
storage.__exit__()
"""


def expected() -> str:
    step = 1_000_003
    shares = (
        b"".join(CONTENT[start : start + step] for start in range(first * step, SIZE, 4 * step))
        for first in range(4)
    )
    return " ".join(hashlib.sha256(share).hexdigest() for share in shares)


def repo(name: str) -> Repo:
    files = {"unet/diffusion_pytorch_model.safetensors": CONTENT, "unet/config.json": b'{"a": 1}'}
    return Repo(repo_id=f"acme/{name}", files=files)


def test_every_byte_is_read_once_and_nothing_is_stored(hub: HubServer, machine: Machine) -> None:
    known = hub.add(repo("ranges"))
    hub.sent_bytes = 0
    shares, small = machine.run_script(READ_ALL.format(repo="ranges")).splitlines()
    assert shares == expected()
    assert small == '{"a": 1} ' + known.etag(known.head, "unet/config.json")
    assert hub.sent_bytes == SIZE + 8
    stored = [path for path in machine.home.rglob("*") if path.is_file() and path.stat().st_size > 1000]
    assert not stored


def test_reading_a_head_brings_no_more_than_the_head(hub: HubServer, machine: Machine) -> None:
    hub.add(repo("head"))
    hub.sent_bytes = 0
    script = """
from sdsetup import hub
from sdsetup.hub.remote_storage import HubStorage
model = hub.resolve("acme/head")
storage = HubStorage(model, model.files)
buffer = bytearray(200_000)
storage.open("unet/diffusion_pytorch_model.safetensors").read_into(memoryview(buffer), 8)
print(buffer.hex())
"""
    assert machine.run_script(script).strip() == CONTENT[8:200_008].hex()
    assert hub.sent_bytes <= 2**20


def test_what_the_cache_holds_is_not_read_over_the_network(hub: HubServer, machine: Machine) -> None:
    hub.add(repo("kept"))
    script = """
from sdsetup import hub
from sdsetup.hub.download import fetch
model = hub.resolve("acme/kept")
fetch(model, model.files)
"""
    machine.run_script(script)
    hub.sent_bytes = 0
    assert machine.run_script(READ_ALL.format(repo="kept")).splitlines()[0] == expected()
    assert hub.sent_bytes == 0


def test_broken_ranges_are_asked_for_again(hub: HubServer, machine: Machine) -> None:
    hub.add(repo("faulty"))
    where = "GET /cdn/acme/faulty/*"
    hub.faults += [
        Fault(where=where, action=faults.reset(2_000_000), times=2),
        Fault(where=where, action=faults.status(503)),
        Fault(where=where, action=faults.status(403, {}, b"Request has expired")),
        Fault(where=where, action=faults.stall(1_000_000, 30)),
    ]
    assert machine.run_script(READ_ALL.format(repo="faulty")).splitlines()[0] == expected()


def test_a_server_that_knows_no_ranges_is_named(hub: HubServer, machine: Machine) -> None:
    hub.add(repo("whole"))
    hub.faults.append(Fault(where="GET /cdn/acme/whole/*", action=faults.ignore_range(), times=-1))
    attempt = "try:\n  share(1)\nexcept Exception as error:\n  print(error.code)\n  sys.exit()\n"
    script = READ_ALL.format(repo="whole").replace("with Thread", f"{attempt}with Thread")
    assert machine.run_script(script).strip() == "hub.no-ranges"


def test_a_small_file_with_wrong_bytes_is_refused(hub: HubServer, machine: Machine) -> None:
    hub.add(repo("wrong"))
    hub.faults.append(Fault(where="GET /acme/wrong/resolve/*/unet/config.json", action=faults.flip(2)))
    script = """
from sdsetup import hub
from sdsetup.hub.remote_storage import HubStorage
try:
    model = hub.resolve("acme/wrong")
    HubStorage(model, model.files).read("unet/config.json")
except Exception as error:
    print(error.code)
"""
    assert machine.run_script(script).strip() == "hub.corrupt"

"""`install` on a terminal asks once, also where PyTorch's index is not reached, and not where all is there.

A minute and about 120 MB of downloads: ``python -m tests -m robustness tests/packaging``.
"""

import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sdsetup.bootstrap import known_good
from tests.packaging.building import ROOT, sources
from tests.packaging.newcomer import Newcomer, base_python
from tests.sdsetup.bootstrap import small_index

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals for Python", allow_module_level=True)

import pty

pytestmark = [pytest.mark.robustness, pytest.mark.timeout(900)]


def _closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _attended(person: Newcomer, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run sdsetup on a terminal, saying yes to every question."""
    ours, theirs = pty.openpty()
    said = b""
    with subprocess.Popen(
        [base_python(), "-m", "sdsetup", *arguments], cwd=folder, env=person.variables(),
        stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        answered = 0
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:  # Linux's way of saying that nobody has the other end any more
                break
            said += more
            while said.count(b"[y/N]") > answered:
                answered += 1
                time.sleep(0.2)
                os.write(ours, b"y\n")
    os.close(ours)
    return process.returncode, said.decode()


def test_one_question_where_torch_is_not_to_be_had(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    clone = sources(tmp_path / "clone")
    index = f"http://127.0.0.1:{_closed_port()}/simple"
    person = Newcomer(
        home=tmp_path / "home",
        downloads=tmp_path / "downloads",
        wheel=ROOT / "not wanted",
        more={"SDSETUP_TORCH_INDEX": index, "TERM": "xterm"},
    )
    status, said = _attended(person, clone, "install")
    assert status == 0, said
    assert said.count("Go on?") == 1
    assert said.count("torch is left out") == 1
    assert list((clone / "images").glob("*.png"))

    status, said = _attended(person, clone, "install")
    assert status == 0, said
    assert "Go on?" not in said
    assert "Everything was there already" in said

    status, said = _attended(person, clone, "install", "--torch", "--dry-run")
    assert status == 1, said
    assert "none here or is not reached" in " ".join(said.split())

    small_index.wheel(tmp_path / "index", "torch", f"{known_good.versions()['torch']}+cpu")
    with small_index.index(tmp_path / "index") as (address, _):
        reached = replace(person, more={**person.more, "SDSETUP_TORCH_INDEX": address})
        status, said = _attended(reached, clone, "install", "--torch", "--dry-run")
    assert status == 0, said
    assert re.search(r"package +it is there, packages/demo-cpu-fp16", said)
    assert re.search(r"image +it is there, images/", said)
    assert "convert and verify" not in said

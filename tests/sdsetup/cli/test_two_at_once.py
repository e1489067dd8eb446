"""Two commands at the same moment, each a process of its own: no image is lost, none is replaced."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdsetup.imaging.image_file import read_metadata
from tests.hub_server.client import Machine
from tests.sdsetup import toy_package

WORDS = ("--seed", "5", "--steps", "3", "--provider", "cpu")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(endpoint="http://127.0.0.1:9", home=tmp_path / "home")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_package.write(tmp_path_factory.mktemp("packages") / "toy")


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    ended = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        ended.append((process.returncode, out, err))
    return ended


def test_one_seed_twice_gives_two_files(machine: Machine, package: Path) -> None:
    prompts = ("a red horse", "a blue house", "a tree")
    ended = finish([machine.start("generate", str(package), prompt, *WORDS) for prompt in prompts])
    assert [code for code, _, _ in ended] == [0, 0, 0], ended
    said = [machine.home / out.strip() for _, out, _ in ended]
    assert len(set(said)) == 3
    assert {path.name for path in machine.home.glob("*.png")} == {path.name for path in said}
    for path, prompt in zip(said, prompts, strict=True):
        assert read_metadata(path).request.prompt == prompt
    assert not list(machine.home.glob(".sdsetup*"))


def test_a_name_that_both_were_given_loses_neither(machine: Machine, package: Path) -> None:
    arguments = ("--images", "2", "-o", "b.png")
    ended = finish([machine.start("generate", str(package), p, *WORDS, *arguments) for p in ("one", "two")])
    written = [machine.home / line for code, out, _ in ended if code == 0 for line in out.split()]
    refused = [err for code, _, err in ended if code]
    assert all("exists already" in err for err in refused)
    assert len(refused) < 2
    assert len(set(written)) == len(written) == 4 - 2 * len(refused)
    for path in written:
        Image.open(path).load()


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_what_was_there_stays_unless_asked(machine: Machine, package: Path, options: tuple[str, ...]) -> None:
    machine.home.mkdir(parents=True)
    mine = machine.home / "b-1.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(mine)
    before = mine.read_bytes()
    arguments = ("--images", "2", "-o", "b.png", *options)
    done = machine.run_cold("generate", str(package), "a horse", *WORDS, *arguments)
    if options:
        assert done.code == 0
        assert read_metadata(mine).request.seed == 5
    else:
        assert done.code == 2
        assert "b-1.png exists already" in done.stderr
        assert "--overwrite" in done.stderr
        assert mine.read_bytes() == before
        assert [path.name for path in machine.home.glob("*.png")] == ["b-1.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="hard links are refused the POSIX way")
def test_without_hard_links_a_name_is_taken_as_safely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many processes write one name; the file system's want of hard links is the only thing made up."""
    script = (
        "import sys; from pathlib import Path; from sdsetup import new_file\n"
        "def refuse(self, target): raise PermissionError(1, 'no hard links here')\n"
        "Path.hardlink_to = refuse\n"
        "for n in range(20): print(new_file.write_beside(Path(sys.argv[1], 'a.png'), sys.argv[2].encode()))\n"
    )
    root = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", root)
    started = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    for n, (code, out, _) in enumerate(finish(started)):
        assert code == 0
        assert {Path(line).read_text("utf-8") for line in out.split()} == {str(n)}
    assert len(list(tmp_path.iterdir())) == 60

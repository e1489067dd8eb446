"""The lock between real processes, on every system."""

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sdsetup.bootstrap.lock import alone

ROOT = Path(__file__).parents[3]

# Says where it is, and leaves the lock when a line comes in.
_HOLD = """
import sys
from pathlib import Path
from sdsetup.bootstrap.lock import alone

def say(text):
    print(text, flush=True)

with alone(Path(sys.argv[1]), lambda: say("waiting")):
    say("alone")
    sys.stdin.readline()
say("left")
sys.stdin.readline()
"""


def _hold(path: Path) -> subprocess.Popen[str]:
    inherited = os.environ.get("PYTHONPATH", "")
    return subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), inherited)))},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_the_second_waits_until_the_first_has_left(tmp_path: Path) -> None:
    path = tmp_path / "made on the way" / "\u5199\u771f.lock"
    with _hold(path) as first:
        assert _says(first) == "alone"
        with _hold(path) as second:
            assert _says(second) == "waiting"
            _let_go(first)
            assert _says(first) == "left"
            assert _says(second) == "alone"
            second.kill()
        first.kill()


def test_the_death_of_the_holder_frees_the_lock(tmp_path: Path) -> None:
    with _hold(tmp_path / "lock") as first:
        assert _says(first) == "alone"
        with _hold(tmp_path / "lock") as second:
            assert _says(second) == "waiting"
            first.kill()
            assert _says(second) == "alone"
            second.kill()


def test_locks_of_other_names_do_not_wait(tmp_path: Path) -> None:
    with _hold(tmp_path / "one") as first:
        assert _says(first) == "alone"
        with alone(tmp_path / "other", lambda: pytest.fail("waited for another lock")):
            pass
        first.kill()


def test_where_no_lock_can_be_made_the_work_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = False
    with alone(tmp_path / "file" / "lock", lambda: pytest.fail("waited")):
        done = True
    assert done


@pytest.mark.skipif(sys.platform == "win32", reason="no file that is open can be removed there")
def test_who_waited_for_a_lock_that_was_removed_does_not_hold_it_beside_another(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with alone(path, lambda: pytest.fail("waited"), remove=True):
        waiting = _hold(path)
        assert _says(waiting) == "waiting"
    assert _says(waiting) == "alone"
    with waiting, _hold(path) as third:
        assert _says(third) == "waiting"
        waiting.kill()
        assert _says(third) == "alone"
        third.kill()


def test_whoever_waited_locks_anew_where_the_folder_went_meanwhile(tmp_path: Path) -> None:
    """As ``uninstall`` removes it while installations wait; the folder comes back for the first of them."""
    path = tmp_path / "data" / "lock"
    first = _hold(path)
    assert _says(first) == "alone"
    others = [_hold(path), _hold(path)]
    assert [_says(each) for each in others] == ["waiting", "waiting"]
    if sys.platform != "win32":  # no file that is open can be removed there
        path.unlink()
        path.parent.rmdir()
    _let_go(first)
    said: queue.Queue[int] = queue.Queue()
    for number, each in enumerate(others):
        threading.Thread(target=_report, args=(each, number, said), daemon=True).start()
    winner = said.get(timeout=30)
    with pytest.raises(queue.Empty):
        said.get(timeout=1)
    _let_go(others[winner])
    assert said.get(timeout=30) == 1 - winner
    for each in (first, *others):
        each.kill()
        each.communicate()


def _report(process: subprocess.Popen[str], number: int, said: queue.Queue[int]) -> None:
    """Put a process's number in the queue once it has the lock."""
    if _says(process) == "alone":
        said.put(number)

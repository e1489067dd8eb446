"""What the stand-in for Windows must be like, or the tests under it would show nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sdsetup

pytestmark = pytest.mark.windows


def test_the_project_is_imported_from_its_wheel_and_not_from_the_checkout():
    assert Path(sdsetup.__file__).parts[-3:-1] == ("site-packages", "sdsetup")
    assert not (Path.cwd() / "sdsetup").exists()


def test_a_symbolic_link_is_refused_as_a_plain_account_is(tmp_path):
    target = tmp_path / "target"
    target.write_text("content", encoding="utf-8")
    with pytest.raises(OSError, match="privilege") as refused:
        (tmp_path / "link").symlink_to(target)
    assert refused.value.winerror == 1314
    assert not os.path.lexists(tmp_path / "link")


def test_without_the_stand_in_a_symbolic_link_would_be_claimed_and_not_be_there(tmp_path):
    """The fault that the refusal above guards against; when Wine mends it, this test says so."""
    link = tmp_path / "link"
    code = f"import os; os.symlink(r'{__file__}', r'{link}')"
    claimed = subprocess.run([sys.executable, "-S", "-c", code], timeout=60, check=False).returncode == 0
    assert claimed
    assert not link.exists()


def test_a_pipe_is_cp1252_and_a_japanese_path_ends_a_careless_program():
    code = "import sys; print(sys.stdout.encoding); print('\\u5199\\u771f')"
    careless = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert careless.stdout.split() == [b"cp1252"]
    assert careless.returncode == 1
    assert b"UnicodeEncodeError" in careless.stderr


def test_an_open_file_cannot_be_removed(tmp_path):
    file = tmp_path / "file"
    with file.open("w"), pytest.raises(PermissionError) as refused:
        file.unlink()
    assert refused.value.winerror == 32


def test_a_pipe_is_cp1252_and_our_command_line_survives_a_japanese_argument():
    command = [sys.executable, "-m", "sdsetup", "\u5199\u771f"]
    ours = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert ours.returncode == 2
    assert b"No such command '??'" in ours.stderr
    assert b"Traceback" not in ours.stderr

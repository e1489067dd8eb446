"""What an update that changes nothing leaves to go back to."""

import sys
from pathlib import Path

import pytest

from sdsetup.bootstrap import update
from sdsetup.errors import SetupError


@pytest.mark.skipif(sys.platform == "win32", reason="the files there are not installed as a clone's are")
def test_an_update_that_changes_nothing_keeps_the_former_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "sdsetup-before-update" / "versions.json"
    record.parent.mkdir()
    record.write_text("{}")
    monkeypatch.chdir(tmp_path)
    # A clone is no installed wheel, so this stops before pip is asked.
    with pytest.raises(SetupError), update._written_down(tmp_path):
        raise AssertionError
    assert record.read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["sdsetup-before-update"]


def test_torch_s_cpu_build_comes_back_from_its_own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDSETUP_TORCH_INDEX", raising=False)
    assert update._index_of(["numpy==2.0", "torch==2.9.0"]) == ()
    option, index = update._index_of(["numpy==2.0", "torch==2.9.0+cpu"])
    assert option == "--extra-index-url"
    assert index.endswith("/whl/cpu")

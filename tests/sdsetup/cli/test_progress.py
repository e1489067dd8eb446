"""Bars of tasks, also of those that fail and are tried again."""

from __future__ import annotations

from typing import Any

import pytest

from conversions.events import Advanced, Finished, Started, Stopped, underway
from sdsetup.cli import progress


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return where the display of the next command is kept."""
    kept: list[Any] = []

    class Kept(progress._StepProgress):
        def __init__(self, *columns: Any, **options: Any) -> None:
            super().__init__(*columns, **options)
            kept.append(self)

    monkeypatch.setattr(progress, "_StepProgress", Kept)
    return kept


def test_a_task_that_fails_takes_its_bar_along(shown: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.listening() as listener:
        with (
            pytest.raises(RuntimeError),
            underway(
                listener, Started(task="tiles", label="decoder: running in tiles", total=9, unit="tiles")
            ),
        ):
            listener(Advanced(task="tiles", done=3))
            assert [task.completed for task in shown[0].tasks] == [3]
            raise RuntimeError
        assert not shown[0].tasks
        listener(Stopped(task="tiles"))
    assert not capsys.readouterr().err


def test_a_task_that_begins_again_has_one_bar(shown: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.listening() as listener:
        for _ in range(2):  # the first one's process is lost, and says nothing more
            listener(Started(task="load", label="decoder: loading"))
        assert len(shown[0].tasks) == 1
        listener(Finished(task="load", note="done"))
        assert not shown[0].tasks
    assert capsys.readouterr().err.count("decoder: loading: done") == 1

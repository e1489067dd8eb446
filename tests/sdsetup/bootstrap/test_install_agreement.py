"""What `install` shows and asks before it does anything."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conversions.options import Options
from sdsetup import workflow
from sdsetup.bootstrap import (
    environment_maker,
    handover,
    install,
    install_options,
    install_plan,
    made_already,
    places,
)
from sdsetup.bootstrap.made_already import Made
from sdsetup.cli.app import main
from sdsetup.errors import SetupError
from tests.sdsetup import toy_package


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment's folder that is not there yet."""
    monkeypatch.setattr(places, "environment_folder", lambda: tmp_path / "environment")
    return tmp_path / "environment"


@pytest.mark.parametrize("torch", ["--torch", "--lean"])
def test_with_nobody_to_ask_nothing_is_done_unless_yes_was_said(
    torch: str, environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SetupError) as caught:
        install.begin(["install", torch, "my model"])
    assert caught.value.code == "install.unattended"
    assert caught.value.hint.endswith(f'install {torch} "my model" --yes')
    assert "sdsetup install will do this:" in capsys.readouterr().err
    assert not environment.exists()


def test_a_dry_run_of_a_whole_environment_is_told_by_the_second_half(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment_maker, "is_ready", lambda *_: True)
    monkeypatch.setattr(places, "inside", lambda _: True)
    assert install.begin(["install", "--dry-run"]) is None
    assert install.begin(["install", "--dry-run", "--bundle", str(environment)]) == 0
    assert "bundle       " in capsys.readouterr().err


def test_what_was_agreed_to_is_not_asked_about_again(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_maker, "is_ready", lambda *_: True)
    handed: list[Path | None] = []

    def go_on(python: Path, arguments: list[str], *, prepared: Path | None = None) -> int:
        assert (python, arguments) == (places.python_of(environment), ["-m", "sdsetup", "install"])
        handed.append(prepared)
        return 7

    monkeypatch.setattr(handover, "go_on", go_on)
    assert install.begin(["install"]) == 7
    assert handed == [environment]

    # The second half, started with these variables, looks at nothing, once.
    monkeypatch.setattr(environment_maker, "is_ready", lambda *_: False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for name, value in handover.for_prepared(environment).items():
        monkeypatch.setenv(name, value)
    assert install.begin(["install"]) is None
    with pytest.raises(SetupError, match="no terminal"):
        install.begin(["install"])


def test_a_plan_says_what_an_earlier_installation_has_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = places.environment_folder()
    monkeypatch.setattr(places, "python_of", lambda _: Path(sys.executable))
    arguments = ["install", "--torch"]
    assert made_already.read(environment, arguments) == made_already.NOTHING
    place = workflow.package_folder("demo", Options(target=workflow.default_target()))
    toy_package.write(tmp_path / place)
    made = made_already.read(environment, arguments)
    assert made == Made(package=place)
    options = install_options.read(arguments)
    plan = install_plan.plan(
        environment, environment_maker.wanted_here("cpu"), here=True, offline=False, made=made
    )
    assert f"  package      it is there, {place}" in plan.lines(options)
    assert any("make the first one" in line for line in plan.lines(options))
    image = Path("images", "x.png")
    everything = replace(plan, made=replace(made, image=image)).lines(options)
    assert f"  image        it is there, {image}" in everything
    assert not any("convert and verify" in line for line in everything)
    before = replace(plan, made=made_already.NOTHING).lines(options)
    assert any("convert and verify it" in line for line in before)


def test_the_second_half_says_what_is_there_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["install", "--dry-run"]
    assert main(argv) == 0
    said = capsys.readouterr().err
    assert said.startswith("sdsetup install will do this:")
    assert "nothing to download" in said
    assert "convert demo --dry-run" in said
    assert not any(tmp_path.iterdir())

    place = workflow.package_folder("demo", Options(target=workflow.default_target()))
    package = toy_package.write(tmp_path / place)
    assert main(argv) == 0
    assert f"it is there, {place}" in capsys.readouterr().err
    image = Path("images") / f"{place.name}.png"
    image.parent.mkdir()
    assert (
        main(["generate", str(package), "a cat", "--provider", "cpu", "--steps", "1", "-o", str(image)]) == 0
    )
    capsys.readouterr()
    assert main(argv) == 0
    said = capsys.readouterr().err
    assert said.startswith("Everything is there already")
    assert f"it is there, {image}" in said


@pytest.mark.parametrize(("extras", "smaller"), [(("convert",), True), ((), False)])
def test_a_full_disk_names_the_smaller_way_where_it_was_not_taken(
    extras: tuple[str, ...], smaller: bool, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = environment_maker.wanted_here("cpu", extras=extras)
    plan = install_plan.plan(environment, wanted, here=False, offline=False)
    monkeypatch.setattr(install_plan.InstallPlan, "free_bytes", 10**8)
    with pytest.raises(SetupError, match=r"0\.1 GB free") as caught:
        plan.require_space()
    assert ("--lean" in caught.value.hint) is smaller

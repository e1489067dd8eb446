"""What `install` was asked for, read on a bare Python; and the plan that it shows."""

import os
import sys
from pathlib import Path

import pytest

from sdsetup.bootstrap import install_options, install_plan
from sdsetup.bootstrap.installer import Wanted
from sdsetup.errors import SetupError, UsageError


def test_nothing_said_means_the_demo_and_no_choice_about_torch() -> None:
    read = install_options.read(["install"])
    assert (read.model, read.lean, read.yes, read.bundle, read.offline) == ("demo", None, False, None, None)


def test_values_are_read_in_both_forms_and_are_not_taken_for_the_model(tmp_path: Path) -> None:
    read = install_options.read(
        ["install", "--flavour", "cpu", "--precision=fp32", "--bundle", str(tmp_path), "owner/name", "--lean"]
    )
    assert (read.model, read.flavour, read.lean, read.bundle) == ("owner/name", "cpu", True, tmp_path)
    assert install_options.read(["install", f"--offline={tmp_path}", "-y", "--torch"]).offline == tmp_path


def test_the_same_options_are_known_as_to_the_command_line() -> None:
    import typer

    from sdsetup.cli.install import install

    app = typer.Typer()
    app.command()(install)
    for option in typer.main.get_command(app).params:
        for name in (name for name in option.opts if name.startswith("-") and option.name != "help"):
            value = [] if getattr(option, "is_flag", False) else ["value"]
            if "completion" not in name:
                assert install_options.read(["install", name, *value]).model == "demo", name


@pytest.mark.parametrize(
    "arguments", [["--lean", "--torch"], ["--offline", "a", "--bundle", "b"], ["--lena"]], ids=" ".join
)
def test_what_excludes_each_other_or_is_unknown_is_told(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        install_options.read(["install", *arguments])


def _plan(tmp_path: Path, *extras: str, offline: bool = False) -> install_plan.InstallPlan:
    wanted = Wanted(requirement="x", editable=False, flavour="cpu", extras=extras)
    return install_plan.plan(tmp_path / "environment", wanted, here=False, offline=offline)


def test_the_lean_way_takes_less_and_a_bundle_downloads_nothing(tmp_path: Path) -> None:
    lean, full = _plan(tmp_path), _plan(tmp_path, "convert")
    assert lean.download_bytes < full.download_bytes
    assert lean.download_bytes <= 250_000_000
    assert _plan(tmp_path, offline=True).download_bytes == 0


def test_the_plan_says_where_what_goes_and_what_is_free(tmp_path: Path) -> None:
    text = _said(tmp_path, "owner/name")
    for part in (str(tmp_path / "environment"), "without PyTorch", "120 MB", "owner/name", "GB are free"):
        assert part in text
    assert f"in {Path('packages').absolute()}" in text
    assert f"in {Path('images').absolute()}" in text
    assert f"bundle       {tmp_path}" in _said(tmp_path, "--bundle", str(tmp_path))


def _said(tmp_path: Path, *arguments: str) -> str:
    return "\n".join(_plan(tmp_path).lines(install_options.read(["install", *arguments])))


def test_the_plan_names_the_folders_that_were_asked_for(tmp_path: Path) -> None:
    text = _said(tmp_path, "--folder", str(tmp_path / "art"))
    assert f"in {tmp_path / 'art' / 'packages'}" in text
    assert f"in {tmp_path / 'art' / 'images'}" in text
    text = _said(tmp_path, f"--folder={tmp_path / 'art'}", "--images-folder", str(tmp_path / "shown"))
    assert f"in {tmp_path / 'art' / 'packages'}" in text
    assert f"in {tmp_path / 'shown'}" in text
    assert install_options.read(["install", "--folder", "~/art"]).packages == Path.home() / "art" / "packages"


@pytest.mark.parametrize("option", ["--folder", "--images-folder"])
def test_a_folder_that_cannot_be_made_is_told_before_anything_is_done(option: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(UsageError, match="file is no folder") as caught:
            install_options.read(["install", option, str(place)])
        assert caught.value.code == "install.folder"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_present_folder_of_somebody_else_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != here)  # root may write anywhere
    with pytest.raises(UsageError, match="you may not write in") as caught:
        install_options.read(["install"])
    assert (caught.value.code, "--folder" in caught.value.hint) == ("install.folder", True)
    assert install_options.read(["install", "--folder", str(tmp_path)]).folder == tmp_path
    (here / "packages").mkdir()
    assert install_options.read(["install"]).folder == Path()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows guesses where another person's folder is")
def test_the_folder_of_nobody_is_told() -> None:
    with pytest.raises(UsageError, match="~nobody-at-all") as caught:
        install_options.read(["install", "--folder", "~nobody-at-all/art"])
    assert caught.value.code == "install.folder"


def test_a_full_disk_is_told_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _plan(tmp_path, "convert")
    monkeypatch.setattr(install_plan.InstallPlan, "free_bytes", 10**9)
    with pytest.raises(SetupError, match=r"has 1\.0 GB free; setting up needs 1\.6 GB"):
        plan.require_space()
    _plan(tmp_path).require_space()

import sys
from pathlib import Path

import pytest

from sdsetup.bootstrap import action, installer
from sdsetup.bootstrap.action import InstallAction
from sdsetup.bootstrap.installer import Wanted
from sdsetup.errors import SetupError

PYTHON = Path("venv") / "bin" / "python"


def _run(code: str, log: Path | None = None) -> list[str]:
    lines: list[str] = []
    action.run(InstallAction(label="trying", argv=(sys.executable, "-c", code)), lines.append, log)
    return lines


def test_windows_gets_directml_and_others_the_cpu_build_unless_asked() -> None:
    assert installer.flavour_for("win32") == "directml"
    assert installer.flavour_for("linux") == "cpu"
    assert installer.flavour_for("darwin") == "cpu"
    assert installer.flavour_for("linux", "cuda") == "cuda"


@pytest.mark.parametrize(
    ("platform", "asked"),
    [("linux", "directml"), ("linux", "windowsml"), ("win32", "migraphx"), ("linux", "tpu")],
)
def test_a_flavour_that_does_not_exist_here_is_refused_with_what_does(platform: str, asked: str) -> None:
    with pytest.raises(SetupError) as caught:
        installer.flavour_for(platform, asked)
    assert asked in caught.value.message
    assert caught.value.hint


def test_a_checkout_is_installed_in_place_under_the_constraints_with_its_groups(tmp_path: Path) -> None:
    wanted = Wanted(requirement=str(tmp_path), editable=True, flavour="cpu", groups=("dev",))
    last = installer.install_actions(PYTHON, wanted, installed=["pip"])[-1].argv
    assert last[last.index("--editable") + 1] == f"{tmp_path}[convert,cpu]"
    assert last[last.index("--group") + 1] == f"{tmp_path / 'pyproject.toml'}:dev"
    assert Path(last[last.index("--constraint") + 1]).is_file()


def test_a_wheel_is_asked_for_by_its_exact_version() -> None:
    wanted = Wanted(requirement="sdsetup==1.2", editable=False, flavour="directml")
    assert "sdsetup[convert,directml]==1.2" in installer.install_actions(PYTHON, wanted, ["pip"])[-1].argv


def test_another_flavour_is_removed_before_the_wanted_one_is_installed() -> None:
    wanted = Wanted(requirement="sdsetup==1", editable=False, flavour="directml")
    actions = installer.install_actions(PYTHON, wanted, ["pip", "onnxruntime", "onnxruntime-directml"])
    removal = next(action for action in actions if "uninstall" in action.argv)
    assert {"onnxruntime", "onnxruntime-directml"} <= set(removal.argv)
    assert actions.index(removal) < len(actions) - 1
    alone = installer.install_actions(PYTHON, wanted, ["pip", "onnxruntime-directml"])
    assert not any("uninstall" in action.argv for action in alone)


def test_lines_reach_the_listener_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert _run("print('one'); print('zwei \\u2713')", log) == ["one", "zwei \u2713"]
    assert "zwei \u2713" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "install.disk",
        ),
        ("SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))", "install.tls"),
        ("ProxyError('Cannot connect to proxy.', NewConnectionError('refused'))", "install.proxy"),
        ("Failed to resolve 'index' ([Errno -3] Temporary failure in name resolution)", "install.network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "install.no-wheel"),
        ("The virtual environment was not created because ensurepip is not available", "install.ensurepip"),
        ("ERROR: [WinError 5] Access is denied: 'onnxruntime.dll'", "install.permission"),
        ("ERROR: something never seen before", "install.failed"),
    ],
)
def test_a_failed_program_is_explained_by_what_it_said(said: str, code: str) -> None:
    with pytest.raises(SetupError) as caught:
        _run(f"print({said!r}); raise SystemExit(3)")
    assert caught.value.code == code
    assert caught.value.hint


def test_a_missing_program_is_named() -> None:
    with pytest.raises(SetupError, match="no-such-program"):
        action.run(InstallAction(label="trying", argv=("no-such-program",)), print)

"""pip itself, in a real environment, under the settings and proxies that people have."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from sdsetup.bootstrap import action, child_environment, installer, socks_relay, torch_source
from sdsetup.bootstrap.action import InstallAction
from sdsetup.bootstrap.child_environment import PipSettings
from sdsetup.bootstrap.installer import Wanted
from sdsetup.bootstrap.interpreter import look_at
from sdsetup.errors import SetupError
from tests.sdsetup.bootstrap.small_index import index, wheel
from tests.sdsetup.bootstrap.socks_server import SocksServer, socks_server

if sys.platform == "win32":
    pytest.skip("lays environments out the POSIX way", allow_module_level=True)

venv = pytest.importorskip("venv", reason="an embedded Python has no venv")

ROOT = Path(__file__).parents[3]


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The Python of a new environment with the tests' own pip, and no settings of this machine's."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python3.*")) / "site-packages"
    for file in metadata.distribution("pip").files or ():
        source = Path(str(file.locate()))
        if ".." not in file.parts and source.is_file():
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, site / file)
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return str(folder / "bin" / "python")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    wheel(tmp_path / "wheels", "little", "1.0", ("smaller>=1",))
    wheel(tmp_path / "wheels", "smaller", "1.0")
    with index(tmp_path / "wheels") as found:
        yield found


@pytest.fixture
def socks() -> Iterator[SocksServer]:
    with socks_server() as server:
        yield server


def _install(python: str) -> list[str]:
    lines: list[str] = []
    argv = (python, "-m", "pip", "install", "--no-compile", "little")
    action.run(InstallAction(label="installing", argv=argv), lines.append)
    return lines


def _has(python: str) -> bool:
    code = "import little, smaller"
    return subprocess.run([python, "-I", "-c", code], capture_output=True, check=False).returncode == 0


ELSEWHERE = {
    "user": {"PIP_USER": "1"},
    "target": {"PIP_TARGET": "{place}"},
    "prefix": {"PIP_PREFIX": "{place}"},
    "root": {"PIP_ROOT": "{place}"},
    "dry-run": {"PIP_DRY_RUN": "1"},
    "no-deps": {"PIP_NO_DEPS": "1"},
    "python": {"PIP_PYTHON": "/usr/bin/python3"},
    "require-hashes": {"PIP_REQUIRE_HASHES": "1"},
    "requirement": {"PIP_REQUIREMENT": "/no/such/file"},
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_variables_that_redirect_pip_do_not_redirect_an_installation(
    name: str, python: str, served: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", served[0])
    for variable, value in ELSEWHERE[name].items():
        monkeypatch.setenv(variable, value.format(place=tmp_path / "elsewhere"))
    _install(python)
    assert _has(python)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "text",
    [
        "[install]\nuser = true\n",
        "[global]\ntarget = {place}\n",
        "[install]\nprefix = {place}\nno-deps = yes\n",
    ],
)
def test_files_that_redirect_pip_do_not_and_their_index_is_kept(
    text: str, python: str, served: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pip.conf"
    written = text.format(place=tmp_path / "elsewhere")
    section = "" if "[global]" in written else "[global]\n"
    file.write_text(f"{written}{section}index-url = {served[0]}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    settings = child_environment.pip_settings(python)
    assert settings.kept["index-url"] == served[0]
    assert settings.left_out
    _install(python)
    assert _has(python)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_pip_cannot_read_is_named(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("no section\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    with pytest.raises(SetupError, match=r"pip\.conf") as caught:
        _install(python)
    assert caught.value.code == "install.pip-settings"


def test_a_constraint_that_leaves_nothing_is_named(
    python: str, served: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constraints.txt").write_text("smaller==9\n")
    monkeypatch.setenv("PIP_INDEX_URL", served[0])
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    with pytest.raises(SetupError, match="constraint"):
        _install(python)


@pytest.mark.parametrize("scheme", ["socks5h", "socks5", "socks", "socks4", "socks4a"])
def test_pip_goes_through_a_socks_proxy(
    scheme: str,
    python: str,
    served: tuple[str, list[str]],
    socks: SocksServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", served[0])
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://127.0.0.1:{socks.port}")
    _install(python)
    assert _has(python)
    assert socks.asked


def test_a_socks_proxy_in_pips_own_settings_with_a_password(
    python: str, served: tuple[str, list[str]], socks: SocksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    socks.login = ("ann", "se cret")
    monkeypatch.setenv("PIP_INDEX_URL", served[0])
    monkeypatch.setenv("PIP_PROXY", f"socks5h://ann:se%20cret@127.0.0.1:{socks.port}")
    _install(python)
    assert _has(python)
    assert socks.asked


def test_a_socks_proxy_that_is_off_is_one_message_that_does_not_cut_anyone_off(
    python: str, served: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", served[0])
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("ALL_PROXY", "socks5h://ann:secret@127.0.0.1:9")
    with pytest.raises(SetupError) as caught:
        _install(python)
    assert caught.value.code in {"install.proxy", "install.no-wheel"}
    assert "unset" not in caught.value.hint
    assert "secret" not in caught.value.message + caught.value.hint


def test_the_relay_serves_nobody_else(socks: SocksServer, served: tuple[str, list[str]]) -> None:
    import socket
    from urllib.parse import urlsplit

    with socks_relay.relay(f"socks5h://127.0.0.1:{socks.port}") as address:
        place = urlsplit(address)
        with socket.create_connection((place.hostname or "", place.port or 0), 5) as client:
            client.sendall(b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 407")
    assert not socks.asked


# Where torch comes from


def _planned(python: str, torch: torch_source.TorchSource, *, report: Path) -> dict[str, Any]:
    wanted = Wanted(requirement=str(ROOT), editable=True, flavour="cpu")
    argv = installer.install_actions(Path(python), wanted, ("pip",), {}, torch)[-1].argv
    where = argv.index("install") + 1
    options = ("--dry-run", "--ignore-installed", "--quiet", "--report", str(report))
    action.run(InstallAction(label="planning", argv=(*argv[:where], *options, *argv[where:])), lambda _: None)
    found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {entry["metadata"]["name"].lower(): entry for entry in found}


def test_pytorchs_index_of_cpu_builds_is_asked_where_pips_own_have_none(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_source, "has_nvidia_card", lambda: False)
    cuda = wheel(tmp_path / "cuda", "torch", "2.13.0", ("triton",))
    wheel(tmp_path / "cuda", "triton", "3.0")
    wheel(tmp_path / "cpu", "torch", "2.13.0+cpu")
    with index(tmp_path / "cuda") as (usual, asked), index(tmp_path / "cpu") as (cpu, _):
        monkeypatch.setenv("PIP_INDEX_URL", usual)
        monkeypatch.setenv(torch_source.INDEX_VARIABLE, cpu)
        settings = child_environment.pip_settings(python)
        found = torch_source.find(Path(python), "cpu", "", settings)
        assert found == torch_source.TorchSource(requirement="torch==2.13.0+cpu", index=cpu)
        action.run(installer.add(python, ["torch"], found), lambda _: None)
    site = look_at(Path(python)).site
    assert site is not None
    assert (site / "torch-2.13.0+cpu.dist-info").is_dir()
    assert not [path for path in asked if cuda.name in path or "triton" in path]


def test_a_configured_place_with_a_cpu_build_is_enough(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_source, "has_nvidia_card", lambda: False)
    wheel(tmp_path / "links", "torch", "2.13.0+cpu")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    found = torch_source.find(Path(python), "cpu", "", child_environment.pip_settings(python))
    assert found == torch_source.TorchSource(requirement="torch==2.13.0+cpu")


def test_without_any_cpu_build_torch_is_left_out(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_source, "has_nvidia_card", lambda: False)
    cuda = wheel(tmp_path / "cuda", "torch", "2.13.0")
    with index(tmp_path / "cuda") as (usual, asked):
        monkeypatch.setenv("PIP_INDEX_URL", usual)
        monkeypatch.setenv(torch_source.INDEX_VARIABLE, "http://127.0.0.1:9/simple")
        found = torch_source.find(Path(python), "cpu", "", child_environment.pip_settings(python))
    assert found.left_out
    assert not [path for path in asked if cuda.name in path]


def test_a_torch_that_is_there_a_cuda_flavour_or_an_nvidia_card_leave_the_choice_to_pip(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_source, "has_nvidia_card", lambda: False)
    nothing = PipSettings()
    assert torch_source.find(Path(python), "cpu", "2.13.0+cu130", nothing) == torch_source.ANY
    assert torch_source.find(Path(python), "cuda", "", nothing) == torch_source.ANY
    monkeypatch.setattr(torch_source, "has_nvidia_card", lambda: True)
    assert torch_source.find(Path(python), "cpu", "", nothing) == torch_source.ANY


def test_an_nvidia_card_is_seen_by_its_driver_or_on_the_bus(tmp_path: Path) -> None:
    assert not torch_source.has_nvidia_card(tmp_path)
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x1002\n")
    (device / "class").write_text("0x030000\n")
    assert not torch_source.has_nvidia_card(tmp_path)
    (device / "vendor").write_text("0x10de\n")
    assert torch_source.has_nvidia_card(tmp_path)
    (device / "class").write_text("0x040300\n")  # only its sound
    assert not torch_source.has_nvidia_card(tmp_path)
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM\n")
    assert torch_source.has_nvidia_card(tmp_path)


@pytest.mark.robustness
def test_an_unconfigured_linux_without_an_nvidia_card_plans_nothing_of_nvidias(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_source, "has_nvidia_card", lambda: False)
    torch = torch_source.find(Path(python), "cpu", "", child_environment.pip_settings(python))
    planned = _planned(python, torch, report=tmp_path / "report.json")
    assert "onnxruntime" in planned
    assert ("torch" in planned) == (not torch.left_out)
    assert not [name for name in planned if name.startswith(("nvidia", "triton", "cuda"))]
    if "torch" in planned:
        assert planned["torch"]["metadata"]["version"].endswith("+cpu")

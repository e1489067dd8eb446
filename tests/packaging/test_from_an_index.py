"""The wheel as people install it, from a real index, and ``sdsetup install`` to the first image.

Minutes and about 150 MB of downloads: ``python -m tests -m robustness tests/packaging``.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdsetup.bootstrap import known_good
from tests.packaging.building import sources, wheel
from tests.sdsetup.bootstrap.small_index import index

if sys.platform == "win32":
    pytest.skip("the tests there have no sources", allow_module_level=True)

venv = pytest.importorskip("venv", reason="an embedded Python has no venv")

pytestmark = [pytest.mark.robustness, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with uv and pipx in it."""
    folder = tmp_path_factory.mktemp("tools")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    argv = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "uv", "pipx", "pip"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return folder / "bin"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    built = wheel(sources(tmp_path_factory.mktemp("sources")), tmp_path_factory.mktemp("wheel"))
    shutil.copy(built, folder)
    with index(folder) as (address, _):
        yield address


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; nothing of this machine's settings but how indexes are reached."""
    for name in list(os.environ):
        if name.startswith(("PYTHON", "UV_", "PIPX_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UV_PYTHON", os.path.realpath(sys.executable))
    monkeypatch.setenv("PIPX_DEFAULT_PYTHON", os.path.realpath(sys.executable))
    if "PIP_CERT" in os.environ:
        monkeypatch.setenv("SSL_CERT_FILE", os.environ["PIP_CERT"])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def _run(*argv: str | Path) -> str:
    given = [str(argument) for argument in argv]
    answer = subprocess.run(given, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.parametrize("way", ["pip", "uv tool", "pipx", "uvx"])
def test_from_an_index_to_the_first_image(
    way: str, tools: Path, address: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = ("--prerelease", "allow", "--index", address)
    command: tuple[str | Path, ...]
    if way == "pip":
        venv.create(home / "environment", with_pip=True, symlinks=True)
        python = home / "environment" / "bin" / "python"
        _run(python, "-m", "pip", "install", "--pre", "--extra-index-url", address, "sdsetup")
        command = (python.with_name("sdsetup"),)
    elif way == "uv tool":
        _run(tools / "uv", "tool", "install", *uv, "sdsetup")
        command = (home / ".local" / "bin" / "sdsetup",)
    elif way == "pipx":
        _run(tools / "pipx", "install", "--pip-args", f"--pre --extra-index-url {address}", "sdsetup")
        command = (home / ".local" / "bin" / "sdsetup",)
    else:
        command = (tools / "uvx", *uv, "sdsetup")
    assert _run(*command, "--version") == "sdsetup 0.1.0.dev0\n"
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", address)
    if way == "uvx":
        refused = subprocess.run([*command, "update"], capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert "next: uvx sdsetup install" in refused.stderr
    elif way == "uv tool":  # whose environments have no pip
        _run(*command, "update")

    made = json.loads(_run(*command, "install", "--lean", "--yes", "--json"))
    assert made["report"]["passed"]
    assert Path(made["image"]).is_file()

    told = dict(line.split(" ", 1) for line in _run(*command, "--version", "--verbose").splitlines())
    if way == "uvx":  # its own environment does not last
        assert told["environment"] == str(home / ".local" / "share" / "sdsetup" / "venv")
    pinned = known_good.versions()
    for name in ("onnxruntime", "onnx", "onnx-ir", "numpy", "huggingface-hub"):
        assert told[name] == pinned[name], name  # the same as in a clone's environment
    assert "torch" not in told

    _run(*command, "update")
    after = dict(line.split(" ", 1) for line in _run(*command, "--version", "--verbose").splitlines())
    assert after == told

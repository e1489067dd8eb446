"""Environments that are really broken: the doctor runs in its own process and must name the cause."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("breaks things the POSIX way", allow_module_level=True)

import venv

from sdsetup.bootstrap import known_good
from tests.sdsetup.doctor.small_hub import SmallHub, serving

ROOT = Path(__file__).parents[3]
MODEL = "owner/model"


def _variables(home: Path, **changes: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith(("HF_", "HUGGING"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), "HF_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", **changes}


def _doctor(variables: dict[str, str], *arguments: str, python: str = sys.executable) -> dict[str, Any]:
    answer = subprocess.run(
        [python, "-m", "sdsetup", "doctor", "--json", *arguments],
        env=variables, cwd=variables["HF_HOME"], capture_output=True, text=True, timeout=240, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in answer.stderr
    assert answer.returncode in {0, 1}, answer.stderr
    document = json.loads(answer.stdout)
    failed = any(finding["status"] == "failure" for finding in document["findings"])
    assert answer.returncode == int(failed)
    return {finding["id"]: finding for finding in document["findings"]}


def _complains(finding: dict[str, Any], status: str, *words: str) -> None:
    assert finding["status"] == status, finding
    for word in words:
        assert word in finding["evidence"], finding
    assert finding["fix"]["says"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    return place


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A virtual environment with nothing in it, not even pip."""
    folder = tmp_path / "bare"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder


@pytest.fixture
def with_pip(bare: Path) -> Path:
    """A virtual environment with nothing but the pip of the tests' own in it."""
    for file in metadata.distribution("pip").files or ():
        source = Path(str(file.locate()))
        if file.parts[0].startswith("pip") and source.exists():
            copy = _site(bare) / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    return bare


def _python(environment: Path) -> str:
    return str(environment / "bin" / "python")


def _site(environment: Path) -> Path:
    return next((environment / "lib").glob("python3.*")) / "site-packages"


def _pip_install(environment: Path, *arguments: str) -> None:
    argv = [_python(environment), "-m", "pip", "install", "-q", "--no-compile", "--no-deps", *arguments]
    subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount real file systems; they vanish with the test."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    with ExitStack() as stack:

        def mount(name: str, *arguments: str) -> Path:
            place = tmp_path / name
            place.mkdir()
            made = subprocess.run(
                ["mount", *arguments, str(place)], capture_output=True, text=True, check=False
            )
            if made.returncode:
                pytest.skip(f"this machine does not mount it: {made.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", str(place)], check=False)
            return place

        yield mount


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with serving(SmallHub()) as server:
        yield server


# Places


def _fill(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            return


def test_a_full_disk_for_results(home: Path, mounted: Callable[..., Path]) -> None:
    place = mounted("results", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    _fill(place)
    found = _doctor(_variables(home), "--only", "storage", "--output", str(place / "package"))
    _complains(found["storage.output-space"], "failure", "0.0 MB free", str(place))
    _complains(found["storage.writable"], "failure", "No space left")


def test_a_full_disk_for_temporary_files(home: Path, mounted: Callable[..., Path]) -> None:
    place = mounted("temporary", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    found = _doctor(_variables(home, TMPDIR=str(place)), "--only", "storage.temp-space")
    _complains(found["storage.temp-space"], "failure", "1.0 MB free", str(place))


def test_a_read_only_cache(home: Path, mounted: Callable[..., Path]) -> None:
    place = mounted("cache", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs")
    found = _doctor(_variables(home, HF_HOME=str(place)), "--only", "storage.writable")
    _complains(found["storage.writable"], "failure", "Read-only", str(place))
    assert "HF_HOME" in found["storage.writable"]["fix"]["commands"][0]


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"])
def test_the_variable_that_decides_where_the_cache_is_gets_named(home: Path, variable: str) -> None:
    variables = _variables(home)
    variables[variable] = "/proc/no/such/place"
    if variable == "HF_HOME":
        variables |= {"XDG_CACHE_HOME": str(home)}
    answer = subprocess.run(
        [sys.executable, "-m", "sdsetup", "doctor", "--json", "--only", "storage.writable"],
        env=variables, cwd=home, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    (finding,) = json.loads(answer.stdout)["findings"]
    assert finding["status"] == "failure"
    assert f"(by {variable})" in finding["evidence"]
    assert finding["fix"]["commands"][0].startswith(f"export {variable}=")


def test_a_cache_that_is_a_file(home: Path) -> None:
    (home / "hub").write_text("not a folder")
    found = _doctor(_variables(home), "--only", "storage.writable")
    _complains(found["storage.writable"], "failure", "is a file")


def test_results_on_fat(home: Path, tmp_path: Path, mounted: Callable[..., Path]) -> None:
    if shutil.which("mkfs.vfat") is None:
        pytest.skip("there is no mkfs.vfat")
    image = tmp_path / "fat.img"
    with image.open("wb") as file:
        file.truncate(40 * 1024 * 1024)
    subprocess.run(["mkfs.vfat", str(image)], check=True, capture_output=True)
    place = mounted("fat", "-o", "loop", str(image))
    found = _doctor(_variables(home, HF_HOME=str(place)), "--only", "storage", "--output", str(place))
    _complains(found["storage.file-system"], "warning", "vfat")
    _complains(found["storage.symlinks"], "warning", "none can be made")


def test_git_not_on_path(home: Path, tmp_path: Path) -> None:
    found = _doctor(_variables(home, PATH=str(tmp_path)), "--only", "system.git")
    _complains(found["system.git"], "warning", "not on PATH")


# Python and packages


def test_a_python_without_pip_is_found_and_repaired(home: Path, bare: Path) -> None:
    variables = _variables(home)
    found = _doctor(variables, "--only", "python.pip", python=_python(bare))
    _complains(found["python.pip"], "failure", "No module named pip")
    assert found["python.pip"]["fix"]["automatic"]
    after = _doctor(variables, "--only", "python.pip", "--fix", "--yes", python=_python(bare))
    assert after["python.pip"]["status"] == "ok"


def test_a_torn_pip_is_found_and_repaired(home: Path, with_pip: Path) -> None:
    shutil.rmtree(_site(with_pip) / "pip" / "_vendor")
    found = _doctor(_variables(home), "--only", "python.pip", python=_python(with_pip))
    _complains(found["python.pip"], "failure", "pip._vendor")
    after = _doctor(_variables(home), "--only", "python.pip", "--fix", "--yes", python=_python(with_pip))
    assert after["python.pip"]["status"] == "ok"


def test_nothing_is_repaired_without_a_yes(home: Path, bare: Path) -> None:
    for arguments in (["--fix"], ["--fix", "--dry-run", "--yes"]):
        found = _doctor(_variables(home), "--only", "python.pip", *arguments, python=_python(bare))
        assert found["python.pip"]["status"] == "failure"


def test_an_environment_whose_base_python_is_gone(home: Path, bare: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "sdsetup", checkout / "sdsetup", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "conversions", checkout / "conversions", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", checkout)
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(tmp_path / "python-that-was-removed")
    variables = _variables(home, PYTHONPATH=str(checkout))
    found = _doctor(variables, "--only", "python.environment", python=_python(bare))
    _complains(found["python.environment"], "failure", "its Python is gone")


def test_a_torn_package_is_found_and_repaired(home: Path, with_pip: Path) -> None:
    _pip_install(with_pip, f"platformdirs=={known_good.versions()['platformdirs']}")
    (_site(with_pip) / "platformdirs" / "unix.py").unlink()
    found = _doctor(_variables(home), "--only", "packages.whole", python=_python(with_pip))
    _complains(found["packages.whole"], "failure", "platformdirs", "unix.py")
    after = _doctor(_variables(home), "--only", "packages.whole", "--fix", "--yes", python=_python(with_pip))
    assert after["packages.whole"]["status"] == "ok"


def test_a_version_that_was_never_tested_is_found_and_repaired(home: Path, with_pip: Path) -> None:
    _pip_install(with_pip, "platformdirs==4.3.6")
    found = _doctor(_variables(home), "--only", "packages.known-good", python=_python(with_pip))
    _complains(found["packages.known-good"], "warning", "platformdirs 4.3.6")
    after = _doctor(
        _variables(home), "--only", "packages.known-good", "--fix", "--yes", python=_python(with_pip)
    )
    assert after["packages.known-good"]["status"] == "ok"


def _stand_in(folder: Path, distribution: str, code: str) -> Path:
    """Build a real wheel that writes the package ``onnxruntime``, as every flavour does."""
    name, version = distribution.replace("-", "_"), "1.24.4"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        "onnxruntime/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, content)
    return wheel


def test_two_flavours_of_onnx_runtime_are_found_and_one_is_left(
    home: Path, with_pip: Path, tmp_path: Path
) -> None:
    pins = known_good.versions()
    _pip_install(with_pip, "-c", str(known_good.CONSTRAINTS), f"onnxruntime=={pins['onnxruntime']}")
    _pip_install(
        with_pip, "--no-deps", str(_stand_in(tmp_path, "onnxruntime-directml", "__version__ = '0'\n"))
    )
    found = _doctor(_variables(home), "--only", "runtime", python=_python(with_pip))
    _complains(found["runtime.flavours"], "failure", "onnxruntime-directml 1.24.4", "at once")
    after = _doctor(_variables(home), "--only", "runtime", "--fix", "--yes", python=_python(with_pip))
    assert after["runtime.flavours"]["status"] == "ok"
    assert after["runtime.trial"]["status"] == "ok"
    assert "CPU: right" in after["runtime.trial"]["evidence"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("from onnxruntime.capi import _pybind_state\n", "No module named 'onnxruntime.capi'"),
        ("import os\nos.abort()\n", "ended with -6"),
        (
            "raise ImportError('DLL load failed while importing onnxruntime_pybind11_state')\n",
            "DLL load failed",
        ),
    ],
)
def test_an_onnx_runtime_that_does_not_start(
    home: Path, bare: Path, tmp_path: Path, code: str, words: str
) -> None:
    with zipfile.ZipFile(_stand_in(tmp_path, "onnxruntime", code)) as archive:
        archive.extractall(_site(bare))
    found = _doctor(_variables(home), "--only", "runtime", python=_python(bare))
    _complains(found["runtime.import"], "failure", words)


def test_an_onnx_runtime_of_which_only_an_empty_folder_is_left(home: Path, bare: Path) -> None:
    (_site(bare) / "onnxruntime" / "capi").mkdir(parents=True)
    found = _doctor(_variables(home), "--only", "runtime.import", python=_python(bare))
    _complains(found["runtime.import"], "failure", "half-removed")


@pytest.mark.robustness  # half a minute of waiting
def test_an_onnx_runtime_that_hangs_does_not_hang_the_doctor(home: Path, bare: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(_stand_in(tmp_path, "onnxruntime", "import time\ntime.sleep(3600)\n")) as archive:
        archive.extractall(_site(bare))
    found = _doctor(_variables(home), "--only", "runtime.import", python=_python(bare))
    _complains(found["runtime.import"], "failure", "no answer within")


# The hub


def _ask_hub(home: Path, hub: SmallHub, *arguments: str, **changes: str) -> dict[str, Any]:
    return _doctor(_variables(home, HF_ENDPOINT=hub.address, **changes), "--only", "hub", *arguments)


def test_a_proxy_where_nothing_listens(home: Path) -> None:
    found = _doctor(_variables(home, HTTPS_PROXY="http://ann:secret@127.0.0.1:9"), "--only", "hub")
    _complains(found["hub.proxy"], "failure", "HTTPS_PROXY", "refused")
    assert "secret" not in json.dumps(found)


def test_a_proxy_that_wants_a_password(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        found = _doctor(_variables(home, HTTPS_PROXY=proxy), "--only", "hub")
        thread.join()
    _complains(found["hub.proxy"], "failure", "407")


def test_an_expired_token(home: Path, hub: SmallHub) -> None:
    (home / "token").write_text("hf_expired0123456789")
    found = _ask_hub(home, hub)
    _complains(found["hub.token"], "failure", "refuses", str(home / "token"))
    assert "hf_expired" not in json.dumps(found)


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        ("planted-secret-1\nplanted-secret-2", "has two lines"),
        ('"hf_quoted0123456789"', "has quotes around it"),
        ("Bearer hf_quoted0123456789", "has words before it"),
    ],
)
@pytest.mark.parametrize("saved", [False, True])
def test_a_token_that_was_copied_wrongly(
    home: Path, hub: SmallHub, token: str, fault: str, saved: bool
) -> None:
    if saved:
        (home / "token").write_text(token)
    found = _ask_hub(home, hub, **({} if saved else {"HF_TOKEN": token}))
    _complains(found["hub.token"], "failure", fault, str(home / "token") if saved else "HF_TOKEN")
    assert found["hub.reachable"]["status"] == "ok"
    assert not any(word in json.dumps(found) for word in ("planted", "quoted0"))


def test_a_token_in_the_variable_that_hides_the_saved_one(home: Path, hub: SmallHub) -> None:
    (home / "token").write_text("hf_saved0123456789")
    hub.tokens["hf_variable0123456789"] = "read"
    found = _ask_hub(home, hub, HF_TOKEN="hf_variable0123456789")
    _complains(found["hub.hidden-token"], "warning", "HF_TOKEN", str(home / "token"))
    assert found["hub.token"]["status"] == "ok"


def test_a_token_that_may_write(home: Path, hub: SmallHub) -> None:
    hub.tokens["hf_w"] = "write"
    _complains(_ask_hub(home, hub, HF_TOKEN="hf_w")["hub.token"], "warning", "write")


@pytest.mark.parametrize(("code", "words"), [("GatedRepo", "gated"), ("RepoNotFound", "does not exist")])
def test_a_model_that_may_not_be_read(home: Path, hub: SmallHub, code: str, words: str) -> None:
    hub.models[MODEL] = code
    _complains(_ask_hub(home, hub, "--for", "convert", MODEL)["hub.access"], "failure", words)


def test_a_mirror_that_sends_the_data_back_to_the_hub(home: Path, hub: SmallHub) -> None:
    hub.models[MODEL], hub.data = None, "https://cdn-lfs.huggingface.co"
    found = _ask_hub(home, hub, "--for", "convert", MODEL)
    _complains(found["hub.endpoint"], "warning", "cdn-lfs.huggingface.co")
    assert found["hub.access"]["status"] == "ok"


def test_a_clock_that_is_hours_off(home: Path, hub: SmallHub) -> None:
    hub.clock_ahead = 2 * 3600
    _complains(_ask_hub(home, hub)["hub.clock"], "failure", "behind")


def test_an_endpoint_that_speaks_no_http(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x00\xff junk \r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        found = _doctor(_variables(home, HF_ENDPOINT=endpoint), "--only", "hub.reachable")
        thread.join()
    _complains(found["hub.reachable"], "failure", endpoint)


def test_an_endpoint_that_never_answers_does_not_hang_the_doctor(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        found = _doctor(_variables(home, HF_ENDPOINT=endpoint), "--only", "hub.reachable")
    _complains(found["hub.reachable"], "failure", "timed out")


def test_an_endpoint_that_is_no_address(home: Path) -> None:
    found = _doctor(_variables(home, HF_ENDPOINT="mirror without scheme"), "--only", "hub.reachable")
    _complains(found["hub.reachable"], "failure", "no http")


def test_a_certificate_that_nobody_trusts(home: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ("-subj", "/O=Gateway/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(key), "-out", str(certificate))
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(argv, check=True, capture_output=True)
    server = SmallHub()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    endpoint = server.address.replace("http:", "https:")
    with serving(server):
        found = _doctor(_variables(home, HF_ENDPOINT=endpoint), "--only", "hub")
        _complains(found["hub.tls"], "failure", "not trusted")
        trusting = _variables(home, HF_ENDPOINT=endpoint, SSL_CERT_FILE=str(certificate))
        after = _doctor(trusting, "--only", "hub")
    assert after["hub.tls"]["status"] == "ok"
    assert "Gateway" in after["hub.tls"]["evidence"]


def test_offline_on_purpose_is_no_failure(home: Path) -> None:
    found = _doctor(_variables(home, HF_HUB_OFFLINE="1"), "--only", "hub")
    assert {finding["status"] for finding in found.values()} <= {"ok", "skipped"}


def test_a_token_file_of_junk_is_survived(home: Path, hub: SmallHub) -> None:
    (home / "token").write_bytes(b"\xff\xfe\x00junk\n\nmore")
    found = _ask_hub(home, hub)
    assert found["hub.token"]["status"] in {"failure", "skipped"}

"""Limits and refusals of the operating system, made for real around the real command."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from sdsetup import os_errors
from sdsetup.cli import app
from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.image_file import read_metadata
from tests.hub_server.client import Done, Machine
from tests.sdsetup import toy_package

if sys.platform == "win32":
    pytest.skip("limits are set the POSIX way", allow_module_level=True)

WORDS = ("a horse", "--seed", "5", "--steps", "3", "--provider", "cpu")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_package.write(tmp_path_factory.mktemp("packages") / "toy")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(endpoint="http://127.0.0.1:9", home=tmp_path / "home")


def run_with(machine: Machine, limit: str, *arguments: str, prepare: str = "") -> Done:
    """Run ``sdsetup ARGUMENTS`` under a limit that a shell sets."""
    machine.home.mkdir(parents=True, exist_ok=True)
    python = f'"{sys.executable}" -m sdsetup "$@"'
    done = subprocess.run(
        ["bash", "-c", f"{limit} && {python}", "bash", *arguments],
        env=machine.environment(PYTHONDONTWRITEBYTECODE="1"),
        cwd=machine.home,
        capture_output=True,
        encoding="utf-8",
        timeout=180,
        check=False,
    )
    return Done(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def assert_one_message(done: Done, *words: str) -> None:
    assert done.code == 1, done
    assert done.stderr.count("error:") == 1, done.stderr
    assert "next:" in done.stderr
    for wrong in ("Traceback", "internal", "did not foresee"):
        assert wrong not in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_a_limit_of_file_sizes_is_seen_before_the_first_step(machine: Machine, package: Path) -> None:
    done = run_with(machine, "ulimit -f 4", "generate", str(package), *WORDS, "--width", "512")
    assert_one_message(done, "files may have 4.0 KiB here", "ulimit -f")
    assert "making the image" not in done.stderr


def test_few_open_files_allowed_by_the_shell_are_raised_where_the_system_allows(
    machine: Machine, package: Path
) -> None:
    done = run_with(machine, "ulimit -Sn 20", "generate", str(package), *WORDS)
    assert done.code == 0, done.stderr


@pytest.mark.parametrize("files", [5, 6, 8, 12])
def test_few_open_files_for_good(machine: Machine, package: Path, files: int) -> None:
    """With so few, already an import fails: Python itself starts with five."""
    done = run_with(machine, f"ulimit -n {files}", "generate", str(package), *WORDS)
    if done.code:
        assert_one_message(done, "too many files are open")


@pytest.mark.parametrize("name", ["n" * 300 + ".png", "d" * 300 + "/a.png", "folder/" * 700 + "a.png"])
def test_a_name_that_is_too_long(machine: Machine, package: Path, name: str) -> None:
    done = run_with(machine, "true", "generate", str(package), *WORDS, "-o", name)
    assert_one_message(done, "name is too long")
    assert "making the image" not in done.stderr


@pytest.mark.parametrize("verb", ["generate", "smoke-test", "verify", "convert", "doctor", "benchmark"])
def test_a_name_that_is_too_long_for_any_verb(machine: Machine, verb: str) -> None:
    name = "n" * 300
    more = {"generate": ["a horse"], "doctor": ["--for", "generate", "--offline"]}.get(verb, [])
    done = run_with(machine, "true", verb, name, *more)
    assert done.code in {1, 2}
    for wrong in ("Traceback", "internal"):
        assert wrong not in done.stderr + done.stdout


def on_small_disk(machine: Machine, size: str, command: str, *arguments: str) -> Done:
    """Run bash code beside a file system of ``size`` at ``small``, in a mount namespace of its own."""
    machine.home.mkdir(parents=True, exist_ok=True)
    (machine.home / "small").mkdir()
    program = f'sdsetup() {{ "{sys.executable}" -m sdsetup "$@"; }}'
    script = f"mount -t tmpfs -o size={size} none small && {program}; {command}"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "bash", "-c", script, "bash", *arguments],
        env=machine.environment(PYTHONDONTWRITEBYTECODE="1"),
        cwd=machine.home,
        capture_output=True,
        encoding="utf-8",
        timeout=180,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr}")
    return Done(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def test_a_full_disk_is_seen_before_the_first_step(machine: Machine, package: Path) -> None:
    done = on_small_disk(
        machine,
        "64k",
        'sdsetup generate "$1" "${@:2}" -o small/a.png --width 512 --height 512',
        str(package),
        *WORDS,
    )
    assert_one_message(done, "are free")
    assert "making the image" not in done.stderr


def test_a_disk_that_fills_during_the_run_loses_no_image(machine: Machine, package: Path) -> None:
    """The disk is filled while the steps run; the image lies where the message says."""
    size = "--steps 900 --width 512 --height 512"
    command = (
        f'sdsetup generate "$1" a --seed 5 --provider cpu {size} -o small/a.png 2> said & pid=$!; '
        'until grep -q "unet: loading" said || ! kill -0 $pid; do sleep 0.05; done; '
        "cat /dev/zero > small/filler 2> /dev/null; wait $pid; code=$?; cat said >&2; exit $code"
    )
    done = on_small_disk(machine, "2m", command, str(package))
    assert_one_message(done, "could not be written where they were wanted")
    assert "the disk is full" in done.stderr
    kept = Path(done.stdout.strip())
    assert read_metadata(kept).request.seed == 5


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="made with Linux' full device")  # noqa: PTH110
@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["path", "json"])
def test_where_stdout_takes_nothing_the_image_is_named(
    machine: Machine, package: Path, as_json: tuple[str, ...]
) -> None:
    done = run_with(machine, "exec > /dev/full", "generate", str(package), *WORDS, "-o", "a.png", *as_json)
    assert_one_message(done, "the disk is full")
    assert "These images were written: a.png." in done.stderr
    assert read_metadata(machine.home / "a.png").request.seed == 5


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_lose_nothing(machine: Machine, package: Path, closed: str) -> None:
    done = run_with(machine, f"exec {closed}", "generate", str(package), *WORDS, "-o", "a.png")
    assert done.code == 0, done
    assert "error" not in done.stderr
    assert read_metadata(machine.home / "a.png").request.seed == 5


def test_a_read_only_disk(machine: Machine, package: Path) -> None:
    command = 'mount -o remount,ro small; sdsetup generate "$1" "${@:2}" -o small/a.png'
    done = on_small_disk(machine, "2m", command, str(package), *WORDS)
    assert_one_message(done, "can only be read")


def test_a_report_that_the_disk_has_no_room_for_leaves_nothing(machine: Machine) -> None:
    command = (
        "mkdir small/full && cat /dev/zero > small/filler 2> /dev/null; "
        "sdsetup convert demo -o package --target cpu --no-verify --report small/report.html; "
        "code=$?; ls -A small >&2; exit $code"
    )
    done = on_small_disk(machine, "64k", command)
    assert done.code == 0, done.stderr
    assert "No report was written to small/report.html: the disk is full" in done.stderr
    assert "Errno" not in done.stderr
    assert done.stderr.split()[-2:] == ["filler", "full"]


READ_ONLY = {
    "images": "generate {package} a --seed 5 --steps 1 --provider cpu -o small/a.png",
    "images here": "generate {package} a --seed 5 --steps 1 --provider cpu",
    "a package": "convert demo --target cpu --no-verify -o small/package",
    "a package here": "convert demo --target cpu --no-verify -o package",
}


@pytest.mark.parametrize("what", READ_ONLY)
def test_of_a_folder_that_can_only_be_read_its_own_name_is_told(
    what: str, machine: Machine, package: Path
) -> None:
    inside = "cd small && " if what.endswith("here") else ""
    command = f"mount -o remount,ro small; {inside}sdsetup {READ_ONLY[what].format(package=package)}"
    done = on_small_disk(machine, "100m", command)
    assert_one_message(done, str(machine.home / "small") if inside else "small")
    for internal in (".ttt", ".sdsetup-", ".part", ".lock", " . ", ": ."):
        assert internal not in done.stderr


def test_a_package_that_vanishes_while_it_is_read(machine: Machine, tmp_path: Path) -> None:
    gone = toy_package.write(tmp_path / "gone")
    for path in sorted(gone.rglob("merges.txt")):
        path.unlink()
        path.symlink_to(tmp_path / "nowhere")
    assert_one_message(run_with(machine, "true", "generate", str(gone), *WORDS))


@pytest.mark.parametrize("number", os_errors.covered())
def test_each_number_of_the_system_ends_a_verb_with_one_message(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(number, os.strerror(number), "/some/where")

    monkeypatch.setattr("sdsetup.cli.whoami.whoami", refuse)
    assert app.main(["whoami"]) == 1
    said = capsys.readouterr().err
    assert said.count("error:") == said.count("next:") == 1
    assert "/some/where" in said
    for wrong in ("internal", "Traceback", "Errno"):
        assert wrong not in said


@pytest.mark.parametrize("number", os_errors.covered_winerrors())
def test_each_number_of_windows_has_a_message(number: int) -> None:
    error = OSError(errno.EINVAL, "anything")
    error.winerror = number  # type: ignore[attr-defined]  # as Windows sets it
    explained = os_errors.explain(error)
    assert explained.code != "os.refused"
    assert explained.hint


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), "disk.full"),
        (ImportError("libx.so: cannot open shared object file: Too many open files"), "os.too_many_files"),
        (ValueError("open file /x/model.onnx failed, errcode = 24"), "os.too_many_files"),
        (MemoryError(), "os.no_memory"),
    ],
)
def test_errors_of_the_system_are_found_in_those_of_libraries(error: Exception, code: str) -> None:
    found = os_errors.find(error)
    assert found is not None
    assert os_errors.explain(found).code == code


def test_an_error_of_the_system_is_found_behind_another() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "x", "/there")
        except OSError as first:
            raise RuntimeError("something else") from first
    except RuntimeError as error:
        found = os_errors.find(error)
    assert found is not None
    assert found.filename == "/there"
    assert os_errors.find(RuntimeError("something else")) is None


def test_an_error_that_nobody_thought_of_is_one_line_and_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail() -> None:
        raise KeyError("hf_PlantedSecret12345\nsecond line")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr("sdsetup.cli.whoami.whoami", fail)
    assert app.main(["whoami"]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[0].startswith("error: internal error: KeyError:")
    assert len(said.strip().splitlines()) == 2
    log = Path(said.rpartition("the log: ")[2].strip())
    assert "Traceback" in log.read_text("utf-8")
    assert "hf_Planted" not in log.read_text("utf-8") + said


def test_errors_survive_the_way_from_another_process() -> None:
    for error in (SetupError("a", "b", "c"), UsageError("a", "b", "c")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(again), again.code, again.message, again.hint) == (type(error), "a", "b", "c")

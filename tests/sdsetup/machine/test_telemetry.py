"""ONNX Runtime's telemetry is off before it is imported: no file in the user's cache, no name looked up."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform == "win32",
    reason="ONNX Runtime warns of Wine's processor there, and looks names up another way",
)

ROOT = Path(__file__).parents[3]
OPENS = "import onnxruntime, time; onnxruntime.InferenceSession({graph!r}); time.sleep(0.5)"
GRAPH = str(ROOT / "sdsetup" / "machine" / "readers" / "trial.onnx")
WAYS = {
    "sdsetup": ["-c", "import sdsetup; " + OPENS.format(graph=GRAPH)],
    "conversions": ["-c", "import conversions; " + OPENS.format(graph=GRAPH)],
    "trial": ["-P", str(ROOT / "sdsetup" / "machine" / "readers" / "trial.py")],
    "doctor": ["-m", "sdsetup", "doctor", "--offline", "--only", "runtime"],
}


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    return kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_onnx_runtime_leaves_anything_in_the_users_cache(way: str, tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, *WAYS[way]], env=_environment(tmp_path), cwd=tmp_path,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name.lower()]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_onnx_runtime_opens_a_socket_to_anywhere(way: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    answer = subprocess.run(
        [*argv, sys.executable, *WAYS[way]], env=_environment(tmp_path), cwd=tmp_path,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if "ptrace" in answer.stderr and answer.returncode:
        pytest.skip("this machine does not let one process watch another")
    assert answer.returncode == 0, answer.stderr
    seen = trace.read_text(encoding="utf-8", errors="replace")
    assert "AF_INET" not in seen, [line for line in seen.splitlines() if "AF_INET" in line]


def test_the_user_may_decide_otherwise(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", "import os, sdsetup, conversions; print(os.environ['ORT_DISABLE_TELEMETRY'])"],
        env=_environment(tmp_path) | {"ORT_DISABLE_TELEMETRY": "0"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout.strip() == "0"

"""Peak memory of real processes, and graphics memory as programs and drivers tell it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conversions.providers.devices import CPU
from sdsetup.runtime import memory_peak
from sdsetup.runtime.memory_peak import measure_memory_peak

HOLD = """
import sys
data = b"x" * 100_000_000
print("held", flush=True)
sys.stdin.readline()
del data
print("freed", flush=True)
sys.stdin.readline()
"""


def device(target: str) -> Any:
    return SimpleNamespace(provider=SimpleNamespace(target=target))


def this_process() -> set[int]:
    return {os.getpid()}


def test_the_peak_of_a_process_stays_after_its_memory_is_freed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        asked: list[int] = []
        twice = threading.Event()

        def processes() -> set[int]:
            asked.append(child.pid)
            if len(asked) == 2:
                twice.set()
            return {child.pid}

        with measure_memory_peak(CPU, processes) as peak:
            assert twice.wait(60)
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "freed\n"
        child.communicate("\n")
    assert 100_000_000 < peak.ram_bytes < 400_000_000
    assert peak.vram_bytes is None
    count = len(asked)
    assert count >= 3  # once more at the end
    assert len(asked) == count


def test_the_memory_of_several_processes_is_added_up() -> None:
    with measure_memory_peak(CPU, this_process) as alone:
        pass
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        with measure_memory_peak(CPU, lambda: [os.getpid(), child.pid]) as together:
            pass
        child.communicate(b"\n")
    assert together.ram_bytes > alone.ram_bytes > 0


def test_a_process_that_is_gone_has_no_memory() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with measure_memory_peak(CPU, lambda: {child.pid}) as peak:
        pass
    assert (peak.ram_bytes, peak.vram_bytes) == (0, None)


def test_the_block_s_error_is_passed_on() -> None:
    with pytest.raises(KeyError), measure_memory_peak(CPU, this_process):
        raise KeyError


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, which prints the lines of a file one by one, the last of them for ever."""
    if sys.platform == "win32":
        pytest.skip("writes a shell script")
    program, numbers = tmp_path / "nvidia-smi", tmp_path / "numbers"
    asked = "--query-gpu=memory.used --format=csv,noheader,nounits"
    lines = (
        "#!/bin/sh",
        f'[ "$*" = "{asked}" ] || exit 3',
        f'head -n 1 "{numbers}"',
        f'[ $(wc -l < "{numbers}") -gt 1 ] && sed -i 1d "{numbers}"',
        "exit 0",
    )
    program.write_text("\n".join(lines), "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return numbers


def test_graphics_memory_of_nvidia_is_counted_from_its_use_before(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("500\n500\n700\n", "utf-8")  # is it there, before, at the end
    with measure_memory_peak(device("cuda"), this_process) as peak:
        pass
    assert peak.vram_bytes == 200 * 2**20
    assert peak.ram_bytes > 10**6


@pytest.mark.parametrize("answer", ["", "no devices\n"])
def test_an_answer_that_is_no_number_is_none(nvidia_smi: Path, answer: str) -> None:
    nvidia_smi.write_text(answer, "utf-8")
    with measure_memory_peak(device("cuda"), this_process) as peak:
        pass
    assert peak.vram_bytes is None


def test_an_answer_that_stays_away_later_changes_nothing(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("500\n500\nno\n", "utf-8")  # is it there, before, at the end
    with measure_memory_peak(device("cuda"), this_process) as peak:
        pass
    assert peak.vram_bytes is None


def test_a_number_of_a_program_that_fails_is_none(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("500\n", "utf-8")
    assert memory_peak._nvidia() == 500 * 2**20
    program = nvidia_smi.with_name("nvidia-smi")
    program.write_text(program.read_text("utf-8").replace("exit 0", "exit 1"), "utf-8")
    assert memory_peak._nvidia() is None


def test_graphics_memory_of_amd_is_the_sum_of_the_driver_s_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_peak, "Path", lambda path: tmp_path / path.lstrip("/"))
    assert memory_peak._amdgpu() is None
    for card, used in (("card0", 5), ("card1", 7)):
        folder = tmp_path / "sys/class/drm" / card / "device"
        folder.mkdir(parents=True)
        (folder / "mem_info_vram_used").write_text(f"{used}\n", "utf-8")
    assert memory_peak._amdgpu() == 12
    with measure_memory_peak(device("migraphx"), this_process) as peak:
        (tmp_path / "sys/class/drm/card1/device/mem_info_vram_used").write_text("100\n", "utf-8")
    assert peak.vram_bytes == 93
    with measure_memory_peak(device("cuda"), this_process) as other:
        pass
    assert other.vram_bytes is None

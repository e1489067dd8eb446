"""Commands as the person's shell takes them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from sdsetup.doctor import shell
from sdsetup.doctor.purpose import purpose
from sdsetup.doctor.registry import CheckContext
from sdsetup.machine.facts import Environment, Python

CALL = "python -m sdsetup convert 'my models'"


def context(name: str, executable: str = "") -> CheckContext:
    return CheckContext(
        environment=Environment(shell=name, python=Python(version=(3, 12, 0), executable=executable)),
        purpose=purpose(),
    )


@pytest.mark.parametrize(
    ("name", "set_command", "unset_command", "call"),
    [
        ("cmd", 'set "HF_HOME=D:\\my models"', "set HF_HOME=", 'python -m sdsetup convert "my models"'),
        (
            "powershell",
            "$env:HF_HOME = 'D:\\my models'",
            "Remove-Item Env:HF_HOME",
            CALL,
        ),
        (
            "fish",
            "set -gx HF_HOME 'D:\\my models'",
            "set -e HF_HOME",
            CALL,
        ),
        ("bash", "export HF_HOME='D:\\my models'", "unset HF_HOME", CALL),
    ],
)
def test_each_shell_has_its_own_words(name: str, set_command: str, unset_command: str, call: str) -> None:
    where = context(name)
    assert shell.set_variable(where, "HF_HOME", "D:\\my models") == set_command
    assert shell.unset_variable(where, "HF_HOME") == unset_command
    assert shell.sdsetup(where, "convert", "my models") == call


def test_sdsetup_is_called_by_the_name_under_which_it_is_found() -> None:
    def said(shell_name: str, *command: str) -> str:
        return shell.sdsetup(
            CheckContext(environment=Environment(shell=shell_name, command=command), purpose=purpose()),
            "login",
        )

    assert said("bash", "sdsetup") == "sdsetup login"
    assert said("bash", "/my data/bin/sdsetup") == "'/my data/bin/sdsetup' login"
    assert said("powershell", "C:\\my data\\sdsetup") == "& 'C:\\my data\\sdsetup' login"


def test_the_python_that_is_looked_at_is_called_by_its_path() -> None:
    assert shell.python(context("bash", "/my venv/bin/python"), "-V") == "'/my venv/bin/python' -V"
    assert shell.python(context("bash"), "-V") == "python -V"
    assert shell.python(context("cmd", "C:\\my venv\\python.exe"), "-V") == '"C:\\my venv\\python.exe" -V'
    spaced, plain = "C:\\my venv\\python.exe", "C:\\venv-3_12\\python.exe"
    assert shell.python(context("powershell", spaced), "-V") == f"& '{spaced}' -V"
    assert shell.python(context("powershell", plain), "a=b", "c/d") == f"{plain} a=b c/d"
    assert shell.call(context("powershell"), ["echo", "it's", "a;b"]) == "echo 'it''s' 'a;b'"
    no_python = CheckContext(environment=Environment(), purpose=purpose())
    assert shell.python(no_python, "-V") == "python -V"


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh")
def test_sh_runs_just_that() -> None:
    words = ["printf", "%s|", "a b", "$HOME", "it's", "*"]
    done = subprocess.run(
        ["sh", "-c", shell.call(context("sh"), words)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a b|$HOME|it's|*|"


def test_sizes_are_written_as_they_are_sold() -> None:
    assert shell.size(3_240_000_000) == "3.2 GB"
    assert shell.size(10**8) == "0.1 GB"
    assert shell.size(10**8 - 1) == "100.0 MB"
    assert shell.size(1_500_000) == "1.5 MB"
    assert shell.memory(16 * 1024**3) == "16.0 GiB"

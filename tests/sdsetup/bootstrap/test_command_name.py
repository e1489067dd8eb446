"""What the last lines of install say can be typed as it stands, and the README says the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("lays environments out the POSIX way", allow_module_level=True)

venv = pytest.importorskip("venv", reason="an embedded Python has no venv")

ROOT = Path(__file__).parents[3]
ASK = (
    "import sys; from sdsetup.bootstrap import command_name as c\n"
    "print(c.typed()); print(c.activation(sys.argv[1]))"
)


@pytest.fixture(params=["plain", "with space"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / request.param
    venv.create(folder / ".venv", with_pip=False, symlinks=True)
    script = folder / ".venv" / "bin" / "sdsetup"
    script.write_text("#!/bin/sh\necho started\n")
    script.chmod(0o755)
    return folder


def _ask(place: Path, shell: str, **changes: str) -> list[str]:
    answer = subprocess.run(
        [str(place / ".venv" / "bin" / "python"), "-c", ASK, shell],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT), **changes},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return answer.stdout.splitlines()


def test_what_is_said_starts_the_command_and_so_does_its_name_after_activation(place: Path) -> None:
    typed, activation = _ask(place, "sh")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    for line in (typed, f"{activation} && sdsetup"):
        answer = subprocess.run([bash, "-c", line], cwd=place, capture_output=True, text=True, check=False)
        assert answer.stdout == "started\n", (line, answer.stderr)


def test_in_an_activated_terminal_the_name_is_enough(place: Path) -> None:
    path = os.pathsep.join([str(place / ".venv" / "bin"), os.environ["PATH"]])
    assert _ask(place, "sh", PATH=path) == ["sdsetup", ""]


def test_a_hint_names_the_command_as_it_is_found_and_leaves_all_else_alone(place: Path) -> None:
    hint = "run sdsetup login, then `python -m sdsetup install --torch`; the docs of sdsetup tell more."
    ask = f"from sdsetup.bootstrap import command_name as c; print(c.as_typed({hint!r}))"
    python, variables = place / ".venv" / "bin" / "python", {**os.environ, "PYTHONPATH": str(ROOT)}
    for path, name in (
        (variables["PATH"], ".venv/bin/sdsetup"),
        (f"{python.parent}{os.pathsep}{variables['PATH']}", "sdsetup"),
    ):
        answer = subprocess.run(
            [str(python), "-c", ask], cwd=place, env={**variables, "PATH": path},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        wanted = hint if name == "sdsetup" else hint.replace("python -m ", "").replace("sdsetup ", f"{name} ")
        assert answer.stdout.strip() == wanted.replace(f"of {name}", "of sdsetup")


def test_where_there_is_no_command_a_hint_names_the_python_that_runs(place: Path) -> None:
    python = place / ".venv" / "bin" / "python3"
    (python.parent / "sdsetup").unlink()
    ask = (
        "from sdsetup.bootstrap import command_name as c; print(c.as_typed('run: python -m sdsetup install'))"
    )
    answer = subprocess.run(
        [str(python), "-c", ask], cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": os.defpath},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout == "run: python3 -m sdsetup install\n"


def test_every_verb_of_the_command_line_is_known() -> None:
    from sdsetup.bootstrap import command_name
    from sdsetup.cli.verbs import VERBS

    assert {verb.name for verb in VERBS} == command_name.VERBS


def test_the_readme_has_the_lines_of_every_shell(place: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if " " not in str(place.name):
        for shell in ("sh", "fish"):
            typed, activation = _ask(place, shell)
            assert f"`{typed}`" in readme
            assert f"`{activation}`" in readme


@pytest.mark.parametrize(
    "text",
    [
        "plain-1.0/a@b",
        "two words",
        "a(1)&b",
        "it's",
        'a"b',
        "$HOME",
        "a`id`",
        "a\\b",
        "new!",
        "",
        "#x",
        "a;b",
        "*",
        "ü",
    ],
)
def test_a_part_of_a_command_reaches_the_command_as_it_is(text: str) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    from sdsetup.bootstrap.command_name import quoted

    line = f"printf '%s|' {quoted(text)}"
    answer = subprocess.run(
        [bash, "-c", line], capture_output=True, encoding="utf-8", check=True, cwd=ROOT / "tests"
    )
    assert answer.stdout == f"{text}|"


def test_what_needs_no_quotes_has_none() -> None:
    from sdsetup.bootstrap.command_name import quoted

    assert quoted("packages/a_b-1.0,c") == "packages/a_b-1.0,c"
    assert quoted("two words") == '"two words"'

"""A model named where a package is wanted, and prompts as shells deliver them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from sdsetup.cli.app import main
from tests.sdsetup import toy_package

WORDS = ("a cat", "--seed", "5", "--steps", "3", "--provider", "cpu")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", ["generate", "smoke-test", "benchmark", "verify"])
@pytest.mark.parametrize(
    ("typed", "model"),
    [
        ("acme/dreams-v1.5", "acme/dreams-v1.5"),
        ("acme/dreams@main", "acme/dreams"),
        ("https://huggingface.co/acme/dreams", "acme/dreams"),
        ("demo", "demo"),
    ],
)
def test_a_model_that_was_never_converted(
    capsys: pytest.CaptureFixture[str], verb: str, typed: str, model: str
) -> None:
    assert main([verb, typed, *(("a cat",) if verb == "generate" else ())]) == 1
    said = capsys.readouterr().err
    assert f"next: sdsetup convert {model}\n" in said
    assert "--output" not in said


def test_without_a_package_the_one_that_is_here_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate"]) == 2
    assert 'for example: sdsetup generate PACKAGE "a lighthouse at dawn"' in capsys.readouterr().err
    assert main(["generate", "a cat"]) == 2
    assert 'next: sdsetup generate PACKAGE "a cat"' in capsys.readouterr().err
    toy_package.write(here / "packages" / "my dreams")
    assert main(["generate", "a cat"]) == 2
    assert 'next: sdsetup generate "packages/my dreams" "a cat"' in capsys.readouterr().err
    assert main(["generate", 'a "cat" ' * 100]) == 2
    assert """next: sdsetup generate "packages/my dreams" 'a "cat" a "cat" """ in capsys.readouterr().err
    assert main(["generate", "packages/my dreams"]) == 2
    assert 'sdsetup generate "packages/my dreams" "a lighthouse at dawn"' in capsys.readouterr().err


def test_a_model_whose_package_is_here(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = toy_package.write(here / "packages" / "dreams-cpu-fp16")
    assert main(["generate", "acme/dreams", *WORDS]) == 1
    said = capsys.readouterr().err
    assert 'next: name the package: sdsetup generate packages/dreams-cpu-fp16 "a cat"' in said
    assert main(["benchmark", "acme/dreams"]) == 1
    assert "next: name the package: sdsetup benchmark packages/dreams-cpu-fp16\n" in capsys.readouterr().err
    assert main(["generate", "packages/dreams-cpu-fp16", *WORDS]) == 0
    capsys.readouterr()
    other = package.rename(package.with_name("renamed"))
    manifest = json.loads((other / "manifest.json").read_text("utf-8"))
    manifest["checkpoint"]["origin"] = "Acme/Dreams"
    (other / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert main(["generate", "acme/dreams", *WORDS]) == 1
    assert "sdsetup generate packages/renamed" in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["packages/dreams-cpu-fp16", "nowhere", "a/b/c", "../x/y"])
def test_a_folder_that_is_not_there_is_no_model(capsys: pytest.CaptureFixture[str], typed: str) -> None:
    assert main(["generate", typed, *WORDS]) == 1
    assert "there is no package at" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["generate", "verify"])
@pytest.mark.parametrize("typed", ["packages/dreams-cpu-fp61", "dreams-cpu-fp16", "packages/dream-cpu-fp16"])
def test_of_a_mistyped_package_the_nearest_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], verb: str, typed: str
) -> None:
    toy_package.write(here / "packages" / "dreams-cpu-fp16")
    prompt = ("a cat",) if verb == "generate" else ()
    assert main([verb, typed, *prompt]) == 1
    said = capsys.readouterr().err
    assert f"there is no package at {Path(typed)}; packages/dreams-cpu-fp16 is here." in said
    assert f"next: name the package: sdsetup {verb} packages/dreams-cpu-fp16" in said


@pytest.mark.parametrize("verb", ["verify", "smoke-test"])
def test_a_verb_without_a_prompt_does_not_take_the_folder_it_is_in_for_one(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.chdir(toy_package.write(here / "toy"))
    assert main([verb, "nothere"]) != 0
    assert "then the prompt" not in capsys.readouterr().err


def test_of_a_folder_of_packages_one_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_package.write(here / "packages" / "dreams")
    toy_package.write(here / "packages" / "other")
    assert main(["generate", "packages", "a cat"]) == 1
    said = capsys.readouterr().err
    assert "packages is a folder of packages: dreams, other." in said
    assert 'next: name one of them: sdsetup generate packages/dreams "a cat"' in said


def test_a_prompt_before_the_package(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_package.write(here / "packages" / "dreams")
    assert main(["generate", "a cat", "packages/dreams"]) == 2
    assert 'next: sdsetup generate packages/dreams "a cat"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("generate packages/dreams a red cat", 'sdsetup generate packages/dreams "a red cat"'),
        ("generate my dreams a red cat", 'sdsetup generate "my dreams" "a red cat"'),
        ("generate packages/dreams a red cat --steps 3", 'sdsetup generate packages/dreams "a red cat"'),
        ("verify my dreams", 'sdsetup verify "my dreams"'),
        ("convert my other model", 'sdsetup convert "my other model"'),
        ("whoami please", "sdsetup whoami --help"),
    ],
)
def test_what_was_typed_without_quotes(
    here: Path, capsys: pytest.CaptureFixture[str], typed: str, expected: str
) -> None:
    toy_package.write(here / "packages" / "dreams")
    toy_package.write(here / "my dreams")
    assert main(typed.split()) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert f"{expected}\n" in said


def test_what_a_prompt_s_notation_cannot_do_is_said_once(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = toy_package.write(here / "toy")
    words = ["a cat <lora:x:1>", "--negative-prompt", "embedding:bad", *WORDS[1:]]
    assert main(["generate", str(package), *words]) == 0
    said = capsys.readouterr().err
    assert said.count("plain words") == 2
    assert said.count("<lora:x:1>") == 1
    assert "the negative prompt holds notation that is read as plain words: embedding:bad." in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows hands over Unicode")
def test_a_prompt_of_bytes_that_are_no_utf8(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = toy_package.write(here / "toy")
    assert main(["generate", str(package), os.fsdecode(b"caf\xe9"), *WORDS[1:]]) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert "the prompt is no valid UTF-8" in said

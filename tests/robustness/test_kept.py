"""Faults that the harness found, each as small as it became."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("links and limits are made the POSIX way", allow_module_level=True)

from tests.hub_server import Fault, HubServer, Repo, faults
from tests.hub_server.checkpoint import checkpoint_files
from tests.robustness.hub_answers import changed
from tests.robustness.mutations import Become, Content, Flip, Mutation, SetField
from tests.robustness.user import User
from tests.sdsetup import toy_package

PACKAGES: tuple[tuple[str, Mutation], ...] = (
    # A configuration of a package was believed without a look at its types.
    ("inspect", SetField(file="unet/config.json", keys=("out_channels",), value='"x"')),
    ("generate", SetField(file="unet/config.json", keys=("sample_size",), value="[1]")),
    ("generate", SetField(file="vae_decoder/config.json", keys=("scaling_factor",), value="[]")),
    # So was the manifest.
    ("inspect", SetField(file="manifest.json", keys=("checkpoint",), value="null")),
    ("smoke-test", SetField(file="manifest.json", keys=("checkpoint", "sha256"), value="3")),
    ("verify", SetField(file="manifest.json", keys=("submodels", "unet"), value="null")),
    ("verify", SetField(file="manifest.json", keys=("files", "unet/model.onnx"), value="[]")),
    ("verify", SetField(file="manifest.json", keys=("precision",), value="[]")),
    ("inspect", Flip(file="manifest.json", at=0.984375, mask=1)),
    # Reading a pipe never ends.
    ("generate", Become(file="tokenizer/vocab.json", what="pipe")),
    ("generate", Become(file="scheduler/scheduler_config.json", what="pipe")),
    ("verify", Become(file="unet/model.onnx", what="pipe")),
    # ONNX's checker raises errors of its own.
    ("verify", Content(file="unet/model.onnx", content=b"")),
)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    home = tmp_path_factory.mktemp("user") / "home"
    home.mkdir()
    with User(endpoint="http://127.0.0.1:9", home=home) as somebody:
        yield somebody


@pytest.mark.parametrize(("verb", "change"), PACKAGES, ids=lambda value: str(value)[:60])
def test_a_mutated_package(user: User, tmp_path: Path, verb: str, change: Mutation) -> None:
    package = toy_package.write(tmp_path / "toy")
    change.apply(package)
    if isinstance(change, Content):
        toy_package.write_manifest(package)
    words = {"generate": ("a horse", "--steps", "2", "--provider", "cpu"), "verify": ("--provider", "cpu")}
    user.run(verb, str(package), *words.get(verb, ()))


@pytest.mark.torch
@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("field", ["addition_time_embed_dim", "projection_class_embeddings_input_dim"])
def test_an_xl_unet_that_does_not_say_how_wide_its_conditions_are(
    user: User, tmp_path: Path, field: str, drop: bool
) -> None:
    from tests.checkpoints import VARIANTS, make_variant

    folder = make_variant(tmp_path / "refiner", VARIANTS["stable-diffusion-xl-refiner"])
    SetField(file="unet/config.json", keys=(field,), value="null", drop=drop).apply(folder)
    done = user.run("inspect", str(folder))
    assert done.code == 1
    assert field in done.stderr


@pytest.mark.parametrize("what", ["pipe", "link to zeros", "folder", "link to itself"])
@pytest.mark.parametrize("option", ["--init-image", "--from", "--mask"])
def test_an_image_that_is_no_file(user: User, tmp_path: Path, option: str, what: str) -> None:
    package = toy_package.write(tmp_path / "toy")
    (tmp_path / "image.png").write_bytes(b"")
    Become(file="image.png", what=what).apply(tmp_path)
    image = str(tmp_path / "image.png")
    more = ("--init-image", image) if option == "--mask" else ()
    done = user.run("generate", str(package), "a horse", "--provider", "cpu", option, image, *more)
    assert done.code in (1, 2)


def test_a_hub_that_names_no_repository(user: User, tmp_path: Path) -> None:
    with HubServer() as hub:
        hub.add(Repo(repo_id="acme/tiny", files=checkpoint_files(unet_bytes=1000)))
        for value in (None, 3, "../../evil", ""):
            change = faults.rewrite(lambda body, value=value: changed(body, 0, value))
            hub.faults[:] = [Fault(where="GET /api/models/acme/tiny*", action=change)]
            home = tmp_path / "home"
            with User(endpoint=hub.endpoint, home=home) as somebody, somebody.writing_only():
                done = somebody.run("download", "acme/tiny")
            assert done.code == 1
            assert "not from the Hub" in done.stderr


@pytest.mark.parametrize("output", [".", "..", "/", ""])
@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--overwrite",)], ids=str)
def test_a_package_where_one_stands(user: User, output: str, more: tuple[str, ...]) -> None:
    with user.writing_only():
        done = user.run("convert", "demo", "--target", "cpu", "-o", output, *more)
    assert done.code == 1
    assert "--output NAME" in done.stderr


@pytest.mark.parametrize("page", [".", "..", "/", "", "hf/.."])
def test_a_report_that_would_be_a_folder(user: User, page: str) -> None:
    (user.home / "hf").mkdir(exist_ok=True)
    with user.writing_only():
        done = user.run("convert", "demo", "--target", "cpu", "-o", "new", "--no-verify", "--report", page)
    assert done.code == 2
    assert "report.html" in done.stderr


def test_a_folder_without_a_name_gives_its_own(user: User) -> None:
    (user.home / "empty").mkdir()
    for place in (".", "..", "empty/.."):
        done = user.run("generate", place, "a horse")
        assert done.code == 1
        assert "next: give a package's folder" in done.stderr
    toy_package.write(user.home / "toy")
    for place, named in ((".", "toy"), ("empty/..", "empty/../toy")):
        done = user.run("generate", place, "a horse")
        assert done.code == 1
        assert f'next: name one of them: sdsetup generate {named} "a horse"' in done.stderr

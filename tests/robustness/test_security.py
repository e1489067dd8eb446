"""What strangers can put into checkpoints, packages and images: docs/explanation/security.md by lines."""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image, PngImagePlugin

if sys.platform == "win32":
    pytest.skip("links and limits are made the POSIX way", allow_module_level=True)

from tests.hub_server.client import Done
from tests.robustness import mutations
from tests.robustness.user import User, list_files
from tests.sdsetup import toy_package

SECRET = "a secret of the user"  # noqa: S105
IMAGE = ("--steps", "2", "--seed", "1", "--provider", "cpu")


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    home = tmp_path_factory.mktemp("user") / "home"
    home.mkdir()
    (home / "secret").write_text(SECRET)
    with User(endpoint="http://127.0.0.1:9", home=home) as somebody:
        yield somebody


@pytest.fixture
def package(user: User, tmp_path: Path) -> Path:
    return toy_package.write(tmp_path / "toy")


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return mutations.copy(tiny_checkpoint, tmp_path / "checkpoint", linked=False)


@pytest.fixture
def graphs(user: User, graph_cache: Path) -> None:
    """Let the user have the traced graphs of the tiny checkpoint."""
    place = user.home / "caches" / "sdsetup" / "graphs"
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(graph_cache)


def refused(done: Done, *words: str) -> None:
    """Demand one message with the next step, and none of the secret."""
    assert done.code in (1, 2), done
    assert [line.startswith("error:") for line in done.stderr.splitlines()].count(True) == 1, done.stderr
    assert SECRET not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def convert(user: User, checkpoint: Path, *options: str) -> Done:
    return user.run(
        "convert",
        str(checkpoint),
        "--target",
        "cpu",
        "--no-verify",
        "-o",
        str(user.home / "package"),
        *options,
    )


# Pickles


@pytest.mark.torch
@pytest.mark.parametrize("options", [(), ("--allow-pickle",)])
def test_a_pickle_that_is_a_program_never_runs(
    user: User, checkpoint: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    program = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    weights.with_suffix(".bin").write_bytes(program)
    refused(convert(user, checkpoint, *options))
    assert not (tmp_path / "ran").exists()


# Names and links that lead out of a folder


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "C:\\outside", "a/../../outside", "", "x\0"])
@pytest.mark.parametrize("verb", ["verify", "generate", "inspect"])
def test_a_manifest_names_only_files_of_its_package(user: User, package: Path, name: str, verb: str) -> None:
    manifest = json.loads((package / "manifest.json").read_text("utf-8"))
    manifest["files"][name] = next(iter(manifest["files"].values()))
    (package / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    refused(user.run(verb, str(package), *(["a horse"] if verb == "generate" else [])), "inside the package")


@pytest.mark.parametrize("location", ["../secret", "../../secret", "/etc/passwd", "/dev/zero"])
@pytest.mark.parametrize("verb", ["verify", "generate"])
def test_a_graph_takes_its_weights_only_from_its_own_folder(
    user: User, package: Path, location: str, verb: str
) -> None:
    (package / "secret").write_bytes(SECRET.encode() * 10_000)
    mutations.Graph(file="unet/model.onnx", index=0, key="location", value=location).apply(package)
    toy_package.write_manifest(package)
    done = user.run(
        verb, str(package), *(["a horse", *IMAGE] if verb == "generate" else ["--provider", "cpu"])
    )
    refused(done)
    assert not list(user.home.glob("*.png"))


@pytest.mark.torch
@pytest.mark.parametrize(
    "name", ["tokenizer/merges.txt", "tokenizer/more.json", "tokenizer/more", "unet/config.json"]
)
def test_a_link_to_a_file_of_the_user_is_not_copied_into_a_package(
    user: User, checkpoint: Path, name: str, graphs: None
) -> None:
    (checkpoint / name).unlink(missing_ok=True)
    private = user.home / "private"
    private.mkdir(exist_ok=True)
    (private / "secret").write_text(SECRET)
    (checkpoint / name).symlink_to(private if name == "tokenizer/more" else private / "secret")
    refused(convert(user, checkpoint), "link to", "outside of the checkpoint")
    assert not (user.home / "package").exists()
    for path in user.home.rglob("*"):
        assert path.name == "secret" or not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_links_of_the_hubs_cache_are_followed(user: User, checkpoint: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "models--acme--tiny" / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in checkpoint.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    done = user.run("inspect", str(checkpoint))
    assert done.code == 0, done.stderr


def test_weights_in_shards_are_files_of_the_component(user: User, checkpoint: Path) -> None:
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(checkpoint / "outside.safetensors")
    index = {"weight_map": {"conv_in.weight": "../outside.safetensors"}}
    weights.with_name(f"{weights.name}.index.json").write_text(json.dumps(index))
    refused(user.run("inspect", str(checkpoint)))


def test_writing_never_goes_through_a_hard_link(user: User, package: Path, tmp_path: Path) -> None:
    mine = user.home / "mine.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(mine)
    before = mine.read_bytes()
    os.link(mine, user.home / "out.png")
    done = user.run("generate", str(package), "a horse", *IMAGE, "-o", "out.png", "--overwrite")
    assert done.code == 0, done.stderr
    assert mine.read_bytes() == before
    assert (user.home / "out.png").read_bytes() != before


# Bombs


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}",
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,9223372036854775807]}}',
        b'{"a":' * 100_000,
        b'{"a":{"dtype":"F32","shape":[' + b"1," * 500_000 + b'1],"data_offsets":[0,4]}}\0\0\0\0',
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 5_000 + b'],"data_offsets":[0,4]}}\0\0\0\0',
    ],
)
def test_a_safetensors_bomb_is_refused(user: User, checkpoint: Path, content: bytes) -> None:
    if content.startswith(b"{"):
        content = struct.pack("<Q", len(content)) + content
    (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    refused(user.run("inspect", str(checkpoint)), "is damaged")


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG by hand; its pixels are missing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(*each) for each in chunks), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


TEXT_BOMB = (b"iTXt", b"sdsetup\0\1\0\0\0" + zlib.compress(b"a" * 200_000_000, 9))


@pytest.mark.parametrize(
    "content",
    [
        png(65_000, 65_000),
        png(2**31 - 1, 2**31 - 1),
        png(64, 64, TEXT_BOMB),
        png(64, 64, *[(b"zTXt", b"k%d\0\0" % n + zlib.compress(b"a" * 900_000)) for n in range(200)]),
        png(64, 64, (b"IDAT", zlib.compress(b"a" * 100_000_000, 9))),
        png(0, 0),
        b"GIF89a\xff\xff\xff\xff\0\0\0",
        b"",
    ],
    ids=["65000x65000", "2^31", "text-bomb", "many-texts", "pixel-bomb", "no-size", "gif", "empty"],
)
@pytest.mark.parametrize("option", ["--from", "--init-image"])
def test_an_image_that_would_fill_the_memory_is_refused(
    user: User, package: Path, tmp_path: Path, content: bytes, option: str
) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(content)
    refused(user.run("generate", str(package), "a horse", *IMAGE, option, str(bomb)))


# Metadata in images


def described(path: Path, **request: object) -> Path:
    """Write an image with metadata as sdsetup writes them."""
    document = {
        "request": {"prompt": "a horse", **request},
        "package": "toy",
        "fingerprint": "0",
        "provider": "CPUExecutionProvider",
    }
    document |= {name: request.pop(name) for name in ("package",) if name in request}
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("sdsetup", json.dumps(document))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, pnginfo=notes)
    return path


@pytest.mark.parametrize(
    "request_",
    [
        {"width": 10**9, "height": 10**9},
        {"steps": 10**12},
        {"images": 10**9},
        {"seed": -1},
        {"init_image": "/etc/passwd"},
        {"init_image": "/dev/zero"},
        {"mask": "/etc/passwd"},
        {"refiner": "/etc"},
        {"scheduler": "../../x"},
        {"guidance_scale": float("nan")},
        {"prompt": ["a"]},
    ],
    ids=lambda request: next(iter(request)),
)
def test_hostile_metadata_of_an_image_gets_one_message(
    user: User, package: Path, tmp_path: Path, request_: dict[str, object]
) -> None:
    before = list_files(user.home)
    image = described(tmp_path / "hostile.png", **request_)
    refused(user.run("generate", str(package), "--from", str(image), "--provider", "cpu"))
    assert {name for name in list_files(user.home) if name.endswith(".png")} <= set(before)


def test_metadata_name_no_package_by_a_path(user: User, package: Path, tmp_path: Path) -> None:
    image = tmp_path / "hostile.png"
    notes = PngImagePlugin.PngInfo()
    document = {"request": {"prompt": "x"}, "package": str(package), "fingerprint": "0", "provider": "x"}
    notes.add_itxt("sdsetup", json.dumps(document))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image, pnginfo=notes)
    refused(user.run("generate", "--from", str(image), "--provider", "cpu"), "name it")


# Programs in other clothes


@pytest.mark.parametrize("domain", ["com.evil", "ai.onnx.contrib"])
@pytest.mark.parametrize("verb", ["verify", "generate"])
def test_operators_of_foreign_domains_are_refused(user: User, package: Path, domain: str, verb: str) -> None:
    path = package / "unet" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    model.graph.node[0].domain = domain
    model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    model.metadata_props.append(onnx.StringStringEntryProto(key="custom_ops_library", value="./evil.so"))
    path.write_bytes(model.SerializeToString())
    toy_package.write_manifest(package)
    done = user.run(
        verb, str(package), *(["a horse", *IMAGE] if verb == "generate" else ["--provider", "cpu"])
    )
    refused(done)


@pytest.mark.torch
def test_templates_of_tokenizers_never_run(
    user: User, checkpoint: Path, tmp_path: Path, graphs: None
) -> None:
    """The program in a template is Jinja's usual way out; whatever renders it makes the file."""
    path = checkpoint / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    template = "{{ cycler.__init__.__globals__.os.system('touch " + str(tmp_path / "ran") + "') }}"
    path.write_text(json.dumps({**config, "chat_template": template}), "utf-8")
    (checkpoint / "tokenizer" / "chat_template.jinja").write_text(template)
    done = convert(user, checkpoint)
    assert done.code == 0, done.stderr
    done = user.run("generate", "package", "a horse", *IMAGE)
    assert done.code == 0, done.stderr
    assert not (tmp_path / "ran").exists()

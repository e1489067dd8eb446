from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

from conversions.checkpoint.folder import open_folder
from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
from conversions.conversion import Converted, convert
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.options import Options
from conversions.package.layout import Package, open_package
from conversions.plan import make_plan
from conversions.providers import onnx_session
from conversions.providers.devices import CPU
from conversions.verification.parity import check_files
from conversions.verification.reference import make_inputs
from conversions.weights import link
from conversions.weights.expression import as_expressions
from conversions.weights.link import FileHashes, link_file, linkable_files
from sdsetup.errors import SetupError
from sdsetup.runtime.package import open_for_images

UNET = "unet/diffusion_pytorch_model.safetensors"
HALF = {ir.DataType.FLOAT16}
FULL = {ir.DataType.FLOAT}


def saved(folder: Path, **tensors: np.ndarray) -> tuple[Folder, str]:
    save_file(tensors, folder / "w.safetensors")
    return Folder(folder), "w.safetensors"


def linkable(place: tuple[Folder, str], dtypes: set[ir.DataType]) -> set[str]:
    storage, file = place
    return linkable_files(storage, as_expressions(read_header(storage, file)).values(), dtypes)


def test_a_file_counts_whose_weights_mostly_have_the_package_s_type(tmp_path: Path) -> None:
    place = saved(tmp_path, half=np.zeros(100, np.float16), full=np.zeros(10, np.float32))
    assert linkable(place, HALF) == {"w.safetensors"}
    assert linkable(place, FULL) == set()
    assert linkable(place, HALF | FULL) == {"w.safetensors"}


def test_half_of_a_file_is_enough(tmp_path: Path) -> None:
    place = saved(tmp_path, half=np.zeros(100, np.float16), full=np.zeros(50, np.float32))
    assert linkable(place, HALF) == linkable(place, FULL) == {"w.safetensors"}
    place = saved(tmp_path, half=np.zeros(100, np.float16), full=np.zeros(51, np.float32))
    assert linkable(place, HALF) == set()


def test_of_files_of_one_name_the_first_counts_and_pickles_never_do(tmp_path: Path) -> None:
    for name in ("b/w.safetensors", "a/w.safetensors", "c/other.safetensors", "d/w.bin"):
        (tmp_path / name).parent.mkdir()
        save_file({name: np.zeros(9, np.float16)}, tmp_path / name)
    storage = Folder(tmp_path)
    weights = [
        each
        for name in sorted(storage.names(), reverse=True)
        for each in as_expressions(read_header(storage, name)).values()
    ]
    assert linkable_files(storage, weights, HALF) == {"a/w.safetensors", "c/other.safetensors"}


def test_hashing_that_takes_a_while_is_told_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_HASHED_AT_ONCE_BYTES", 64)
    looked = link.infinite

    def slowly(numbers: np.ndarray) -> float:
        time.sleep(0.04)
        return looked(numbers)

    monkeypatch.setattr(link, "infinite", slowly)
    storage, file = saved(tmp_path, w=np.ones(400, np.float16))
    advanced: list[int] = []
    with FileHashes(storage) as hashes:
        hashes.begin(file, as_expressions(read_header(storage, file)).values())
        hashes.begin(file, [])  # it has begun
        found = hashes.wait(file, advanced.append)
        again = hashes.wait(file, lambda _: None)
    assert found == again
    assert len([count for count in advanced if count]) > 1
    assert min(advanced) >= 0
    assert sum(advanced) == storage.size_bytes(file)


def test_a_known_hash_is_not_computed(tmp_path: Path) -> None:
    storage, file = saved(tmp_path, w=np.full(9, np.nan, np.float16))

    class Known(Folder):
        def known_sha256(self, name: str) -> str:
            return f"hash of {name}"

    known, told = Known(tmp_path), list[int]()
    with FileHashes(known) as hashes:
        hashes.begin(file, as_expressions(read_header(storage, file)).values())
        found = hashes.wait(file, told.append)
    assert (found.sha256, found.finite, told) == (f"hash of {file}", True, [])


def test_what_was_begun_is_given_up_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_HASHED_AT_ONCE_BYTES", 64)
    monkeypatch.setattr(link, "infinite", lambda _: time.sleep(0.05) or 0.0)
    storage, file = saved(tmp_path, w=np.ones(10_000, np.float16))
    with FileHashes(storage) as hashes:
        hashes.begin(file, as_expressions(read_header(storage, file)).values())
        while not hashes._done.get(file):
            time.sleep(0.01)
    assert 0 < hashes._done[file] < storage.size_bytes(file)


def test_a_file_whose_elements_are_not_aligned_does_not_count(tmp_path: Path) -> None:
    place = saved(tmp_path, w=np.zeros(100, np.float32))
    path = tmp_path / "w.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    path.write_bytes(
        (length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :]
    )
    assert linkable(place, FULL) == set()


def test_a_link_takes_no_space_and_follows_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    try:
        (tmp_path / "named").symlink_to("blob")
    except OSError:
        pytest.skip("symbolic links want a right that this user lacks")
    assert link_file(tmp_path / "named", tmp_path / "linked")
    assert (tmp_path / "linked").read_bytes() == b"weights"
    assert not (tmp_path / "linked").is_symlink()


@pytest.mark.skipif(os.name != "nt", reason="elsewhere a file that is marked read-only can be deleted")
def test_a_file_that_is_marked_read_only_is_not_linked(tmp_path: Path) -> None:
    source = tmp_path / "w"
    source.write_bytes(b"weights")
    source.chmod(0o444)
    try:
        assert not link_file(source, tmp_path / "linked")
        assert not (tmp_path / "linked").exists()
    finally:
        source.chmod(0o666)


def test_there_is_no_link_to_another_volume(tmp_path: Path) -> None:
    memory = Path("/dev/shm")  # noqa: S108 - Linux's volume in memory
    other = memory / f"sdsetup-{os.getpid()}"
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one volume")
    (tmp_path / "w").write_bytes(b"weights")
    assert not link_file(tmp_path / "w", other)
    assert not other.exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 7, -1])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_file_is_hashed_and_looked_at_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float, at: int, dtype: type
) -> None:
    monkeypatch.setattr(link, "_HASHED_AT_ONCE_BYTES", 64)
    numbers = np.ones(99, dtype)
    for finite in (True, False):
        if not finite:
            numbers[at] = bad
        storage, file = saved(tmp_path, a=np.ones(5, dtype), w=numbers)
        advanced: list[int] = []
        with FileHashes(storage) as hashes:
            hashes.begin(file, as_expressions(read_header(storage, file)).values())
            found = hashes.wait(file, advanced.append)
        content = (tmp_path / file).read_bytes()
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert found.finite is finite
        assert sum(advanced) == len(content)


@pytest.fixture
def half(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that is stored in float16."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    for path in folder.rglob("*.safetensors"):
        tensors = load_file(path)
        save_file({name: each.astype(np.float16) for name, each in tensors.items()}, path)
    return folder


@pytest.fixture
def package_of(graph_cache: Path, tmp_path: Path) -> Callable[..., Converted]:
    def run(source: Path, name: str = "package", **options: object) -> Converted:
        opened = open_folder(source)
        return convert(
            make_plan(opened, Options(target="cpu", **options), graph_cache),  # type: ignore[arg-type]
            opened,
            tmp_path / name,
            tool_version="test",
            graph_cache=graph_cache,
            checks=None,
            overwrite=True,
            listener=ignore,
        )

    return run


def outputs(package: Package) -> dict[str, np.ndarray]:
    found = {}
    for submodel in package.submodels:
        inputs = make_inputs(submodel.kind, package.config(submodel.name), submodel.kind.sizes)
        outcome = onnx_session.run(package.graph(submodel.name), inputs, CPU, submodel.kind.sizes)
        found |= {f"{submodel.name}.{name}": each for name, each in outcome.outputs.items()}
    return found


@pytest.mark.torch
def test_no_weight_is_written_and_the_numbers_are_those_of_a_copy(
    half: Path, package_of: Callable[..., Converted]
) -> None:
    linked = package_of(half).package
    assert not list(linked.folder.rglob("model.onnx_data"))
    assert (linked.folder / UNET).samefile(half / UNET)
    assert linked.manifest["linked"][UNET]["file"] == UNET
    assert linked.manifest["linked"].keys() <= linked.manifest["files"].keys()
    copied = package_of(half, "copy", copy=True).package
    assert copied.manifest["linked"] == {}
    assert not list(copied.folder.rglob("*.safetensors"))
    for name, numbers in outputs(copied).items():
        np.testing.assert_array_equal(outputs(linked)[name], numbers)


@pytest.mark.torch
def test_the_plan_tells_what_is_written(half: Path, tiny_checkpoint: Path) -> None:
    assert make_plan(open_folder(half), Options(target="cpu"), None).copied_bytes == 0
    plan = make_plan(open_folder(half), Options(target="cpu", copy=True), None)
    assert plan.copied_bytes == plan.package_bytes > 0
    plan = make_plan(open_folder(tiny_checkpoint), Options(target="cpu"), None)
    assert plan.copied_bytes == plan.package_bytes


@pytest.mark.torch
def test_checkpoint_and_package_outlive_each_other(half: Path, package_of: Callable[..., Converted]) -> None:
    first = package_of(half, "first").package
    second = package_of(half, "second").package
    kept = (half / UNET).read_bytes()
    shutil.rmtree(first.folder)
    assert (half / UNET).read_bytes() == kept
    package_of(half, "second")  # replaced in place
    assert (half / UNET).read_bytes() == kept
    shutil.rmtree(half)
    assert check_files(open_package(second.folder), ignore) == ()


@pytest.mark.torch
def test_a_mixed_checkpoint_links_what_it_can_and_writes_the_rest(
    half: Path, package_of: Callable[..., Converted]
) -> None:
    tensors = load_file(half / UNET)
    name = next(name for name, each in tensors.items() if each.ndim == 2)
    tensors[name] = tensors[name].astype(np.float32)
    save_file(tensors, half / UNET)
    mixed = package_of(half).package
    assert mixed.manifest["linked"][UNET]["file"] == UNET
    assert (mixed.folder / "unet/model.onnx_data").stat().st_size == tensors[name].size * 2
    copied = package_of(half, "copy", copy=True).package
    for name, numbers in outputs(copied).items():
        np.testing.assert_array_equal(outputs(mixed)[name], numbers)


@pytest.mark.torch
def test_a_changed_checkpoint_is_noticed_where_images_are_made(
    half: Path, package_of: Callable[..., Converted]
) -> None:
    package = package_of(half).package
    if (package.folder / UNET).stat().st_nlink == 1:
        pytest.skip("this disk shares blocks instead")
    open_for_images(package.folder)
    with (half / UNET).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x3c")
    with pytest.raises(SetupError) as caught:
        open_for_images(package.folder)
    assert caught.value.code == "package.link_changed"
    moved = Path(shutil.copytree(package.folder, package.folder.with_name("moved")))
    open_for_images(moved)  # it shares nothing; `verify` compares the hash


@pytest.mark.torch
def test_a_number_that_is_none_is_named_although_nothing_is_written(
    half: Path, package_of: Callable[..., Converted]
) -> None:
    tensors = load_file(half / UNET)
    name = next(iter(tensors))
    tensors[name].reshape(-1)[0] = np.nan
    save_file(tensors, half / UNET)
    with pytest.raises(ConversionError) as caught:
        package_of(half)
    assert caught.value.code == "weights.not_finite"
    assert name in caught.value.message


@pytest.mark.torch
def test_an_interrupted_conversion_goes_on(half: Path, package_of: Callable[..., Converted]) -> None:
    path = half / UNET
    content = path.read_bytes()
    tensors = load_file(path)
    tensors[next(iter(tensors))].reshape(-1)[0] = np.nan
    save_file(tensors, path)
    with pytest.raises(ConversionError):
        package_of(half)
    path.write_bytes(content)
    package = package_of(half).package
    assert json.loads((package.folder / "manifest.json").read_text("utf-8"))["linked"][UNET]
    assert check_files(package, ignore) == ()

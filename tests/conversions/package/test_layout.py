"""Package folders: what is read of a package, and what an interrupted or a second run leaves."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from conversions.errors import ConversionError
from conversions.package import layout
from conversions.package.layout import (
    DATA_FILE,
    GRAPH_FILE,
    MANIFEST,
    FileRecord,
    Package,
    Staging,
    open_package,
    record,
    torn,
    write_json,
)
from tests.sdsetup import toy_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toy_package.write(tmp_path / "toy")


def change(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    toy_package.write_json(folder / MANIFEST, {**manifest, **changes})


def code(folder: Path) -> str:
    with pytest.raises(ConversionError) as caught:
        open_package(folder)
    assert str(folder) in caught.value.message
    return caught.value.code


@pytest.mark.skipif(sys.platform == "win32", reason="links take a privilege there")
def test_a_package_has_the_name_of_the_folder_that_a_link_leads_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert open_package(tmp_path / "link").name == "toy"


def test_a_package_is_what_its_manifest_and_its_small_files_say(folder: Path) -> None:
    change(folder, linked={}, submodels={"unet": {"precision": "int8"}, "vae_decoder": {}})
    package = open_package(folder)
    assert (package.name, package.target, package.origin) == ("toy", "cpu", "toy_package")
    assert package.submodel_names == ("unet", "vae_decoder")
    assert (package.precision("unet"), package.precision("vae_decoder")) == ("int8", "fp32")
    assert not package.is_fp32
    assert package.fingerprint == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert package.graph("unet") == folder / "unet" / GRAPH_FILE
    assert package.config("unet")["in_channels"] == 4
    assert package.config("nothing") == {}
    assert package.config("scheduler", "scheduler_config.json")["_class_name"] == "PNDMScheduler"
    weights = package.weight_files("unet")
    assert weights == {f"unet/{DATA_FILE}": record(folder / "unet" / DATA_FILE)}
    assert package.quantized("unet") == package.quantized("vae_decoder") == {}
    assert package.with_role("denoiser") == ("unet",)
    assert package.with_role("safety") == ()


def test_quantised_weights_have_their_submodels_precision(folder: Path) -> None:
    quantized = {"precision": "int4", "block": 32, "weights": ["a", "b"]}
    change(folder, submodels={"unet": {"quantized": quantized}, "vae_decoder": {}})
    assert open_package(folder).quantized("unet") == {"a": "int4", "b": "int4"}
    assert open_package(folder).is_fp32


def test_a_package_of_another_family_s_name_is_refused(folder: Path) -> None:
    change(folder, family="stable-diffusion")
    assert open_package(folder).family.name == "stable-diffusion"
    change(folder, family="nobody's")
    with pytest.raises(ConversionError, match="no family") as caught:
        _ = open_package(folder).family
    assert caught.value.code == "family.unsupported"


def test_what_is_no_package_is_told_from_what_is_torn(folder: Path, tmp_path: Path) -> None:
    assert code(tmp_path / "nothing") == "package.missing"
    assert code(tmp_path) == "package.missing"
    change(folder, format=2)
    assert code(folder) == "package.format"
    change(folder, format=1, target=3)
    assert code(folder) == "package.torn"
    for content in ("{", "[]", "{}", '"x"'):
        (folder / MANIFEST).write_text(content, "utf-8")
        assert code(folder) == "package.torn"


def test_a_small_file_that_cannot_be_read_makes_a_package_torn(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text("[", "utf-8")
    with pytest.raises(ConversionError, match="is incomplete") as caught:
        open_package(folder).config("unet")
    assert caught.value.code == torn(folder, "x").code == "package.torn"
    assert not caught.value.message.endswith("..")


def test_a_record_is_size_and_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_HASHED_AT_ONCE_BYTES", 10)
    for content in (b"", b"0123456789", b"0123456789abc"):
        (tmp_path / "file").write_bytes(content)
        expected = FileRecord(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        assert record(tmp_path / "file") == expected


def test_json_is_written_whole_with_a_line_end(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ö": [1]})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "ö": [\n    1\n  ]\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def staged(output: Path, fingerprint: str = "one") -> Staging:
    staging = Staging(output, fingerprint)
    staging.begin()
    return staging


def add(staging: Staging, component: str, content: bytes = b"weights") -> Path:
    path = staging.folder / component / DATA_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    staging.finish(component, {f"{component}/{DATA_FILE}": record(path)}, {"notes of": component})
    return path


def test_finished_components_are_taken_over_by_the_next_run_of_the_same_plan(tmp_path: Path) -> None:
    output = tmp_path / "package"
    first = staged(output)
    assert first.folder == tmp_path / ".package.partial"
    assert first.finished("unet") is None
    stream = first.stream_path("unet")
    stream.write_text("{}", "utf-8")
    weights = add(first, "unet")
    assert not stream.exists()
    assert first.files() == {f"unet/{DATA_FILE}": record(weights)}

    again = staged(output)
    assert again.finished("unet") == {"notes of": "unet"}
    assert again.files() == first.files()
    again.reopen("unet")
    assert again.finished("unet") is None
    assert staged(output).finished("unet") is None


def test_another_plan_begins_anew(tmp_path: Path) -> None:
    weights = add(staged(tmp_path / "package"), "unet")
    other = staged(tmp_path / "package", "two")
    assert other.finished("unet") is None
    assert not weights.exists()
    assert staged(tmp_path / "package", "two").files() == {}


@pytest.mark.parametrize("journal", ["", "{", "[]", "3", "{}"])
def test_a_journal_that_says_nothing_begins_anew(tmp_path: Path, journal: str) -> None:
    first = staged(tmp_path / "package")
    weights = add(first, "unet")
    (first.folder / ".progress.json").write_text(journal, "utf-8")
    assert staged(tmp_path / "package").finished("unet") is None
    assert not weights.exists()


def test_files_that_changed_since_are_built_again_and_their_neighbours_kept(tmp_path: Path) -> None:
    first = staged(tmp_path / "package")
    add(first, "unet")
    changed, shorter, gone = (add(first, name) for name in ("vae", "text", "safety"))
    changed.write_bytes(b"WEIGHTS")
    shorter.write_bytes(b"weight")
    gone.unlink()
    again = staged(tmp_path / "package")
    assert [again.finished(name) is not None for name in ("unet", "vae", "text", "safety")] == [
        True,
        False,
        False,
        False,
    ]
    assert set(again.files()) == {f"unet/{DATA_FILE}"}


def test_only_begun_weights_and_their_progress_outlive_an_interruption(tmp_path: Path) -> None:
    first = staged(tmp_path / "package")
    add(first, "unet")
    begun = first.folder / "vae" / DATA_FILE
    begun.parent.mkdir()
    begun.write_bytes(b"half")
    graph = first.folder / "vae" / GRAPH_FILE
    graph.write_bytes(b"graph")
    stream = first.stream_path("vae")
    stream.write_text("{}", "utf-8")
    stray = first.folder / "stray.json"
    stray.touch()
    staged(tmp_path / "package")
    assert begun.read_bytes() == b"half"
    assert stream.exists()
    assert not graph.exists()
    assert not stray.exists()


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_package_takes_the_place_of_the_old_one(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(layout, "_exchange", lambda *_: False)
    output = tmp_path / "package"
    for place in ("first", "second"):
        staging = staged(output, place)
        add(staging, place)
        package = staging.publish({"name": place})
        assert package == Package(folder=output, manifest={"name": place})
        assert json.loads((output / MANIFEST).read_text("utf-8")) == {"name": place}
        names = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
        assert names == {MANIFEST, f"{place}/{DATA_FILE}"}
        assert [path.name for path in tmp_path.iterdir()] == ["package"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux swaps two paths in one step")
def test_two_folders_change_places_in_one_step(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert layout._exchange(tmp_path / "a", tmp_path / "b") is True
    assert (tmp_path / "a" / "b").exists()
    assert (tmp_path / "b" / "a").exists()
    assert layout._exchange(tmp_path / "a", tmp_path / "c") is False


def test_what_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    staging = staged(tmp_path / "package")
    add(staging, "unet")
    staging.discard()
    staging.discard()
    assert not list(tmp_path.iterdir())

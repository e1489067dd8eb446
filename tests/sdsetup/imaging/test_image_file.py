import json
import os
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdsetup import __version__
from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.image_file import (
    ImageMetadata,
    _most_bytes,
    as_document,
    find_image_of,
    find_package,
    metadata_of,
    paths_for,
    read_metadata,
    write_image,
)
from sdsetup.imaging.request import Request
from sdsetup.runtime.adapters import AppliedAdapter, PackageAdapters
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.textual_inversion import AppliedEmbedding
from tests.sdsetup import toy_package

REQUEST = Request(prompt='a "red" 馬 \\(x\\)', seed=7, images=3, width=64, height=64, scheduler="lms")
RECIPE = ImageMetadata(request=REQUEST, package="päckage", fingerprint="00", provider="CPUExecutionProvider")
PIXELS = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)


def test_a_recipe_survives_the_image(tmp_path):
    write_image(tmp_path / "ö.png", PIXELS, RECIPE)
    assert read_metadata(tmp_path / "ö.png") == RECIPE
    assert np.array_equal(np.asarray(Image.open(tmp_path / "ö.png")), PIXELS)


def test_the_recipe_of_one_image_of_a_batch_has_its_own_seed():
    alone = RECIPE.of_image(2).request
    assert (alone.seed, alone.images) == (9, 1)


def test_an_image_without_a_recipe_says_so(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "plain.png")
    with pytest.raises(SetupError, match="carries no metadata"):
        read_metadata(tmp_path / "plain.png")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n torn"])
def test_a_file_that_is_no_image_says_so(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(SetupError, match="cannot be read as an image"):
        read_metadata(tmp_path / "x.png")


def test_an_image_that_is_not_there_says_so(tmp_path):
    with pytest.raises(SetupError, match="there is no file"):
        read_metadata(tmp_path / "none.png")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"request": {}}',
        "nonsense",
        '{"request": {"prompt": 5}}',
        "[" * 100_000,
        '{"request": []}',
    ],
)
def test_a_foreign_recipe_says_so(tmp_path, text):
    from PIL import PngImagePlugin

    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("sdsetup", text)
    Image.fromarray(PIXELS).save(tmp_path / "x.png", pnginfo=notes)
    with pytest.raises(SetupError, match="another version"):
        read_metadata(tmp_path / "x.png")


def test_recipes_hold_no_path():
    assert "/" not in json.dumps(json.loads(RECIPE.as_json())["package"])


def test_a_named_file_is_used_for_one_and_numbered_for_more(tmp_path):
    assert [p.name for p in paths_for(tmp_path / "a.png", RECIPE)] == ["a-1.png", "a-2.png", "a-3.png"]
    assert paths_for(tmp_path / "a.png", RECIPE.of_image(0)) == (tmp_path / "a.png",)


def test_names_of_our_own_never_replace_a_file(tmp_path):
    one = RECIPE.of_image(0)
    (first,) = paths_for(tmp_path, one)
    write_image(first, PIXELS, one)
    (second,) = paths_for(tmp_path, one)
    assert (first.name, second.name) == ("päckage-7.png", "päckage-7-2.png")


def test_a_folder_that_is_not_there_is_made(tmp_path):
    assert paths_for(tmp_path / "new" / "folder", RECIPE)[0].parent.is_dir()


def test_another_kind_of_image_is_refused_with_a_name_that_works(tmp_path):
    with pytest.raises(UsageError) as caught:
        paths_for(tmp_path / "a.jpg", RECIPE)
    assert "a.png" in caught.value.hint


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(SetupError, match="cannot be written"):
        paths_for(tmp_path / "file" / "a.png", RECIPE)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SetupError, match="cannot be written"):
        paths_for(tmp_path / "a.png", RECIPE)


def test_a_name_that_is_taken_meanwhile_gets_a_number_and_nothing_is_replaced(tmp_path):
    (tmp_path / "a.png").mkdir()
    (tmp_path / "a-2.png").write_text("somebody's", encoding="utf-8")
    written = write_image(tmp_path / "a.png", PIXELS, RECIPE)
    assert written.path.name == "a-3.png"
    assert "was taken" in written.remark
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.png", "a-3.png", "a.png"]
    assert (tmp_path / "a-2.png").read_text(encoding="utf-8") == "somebody's"


def test_a_place_that_is_gone_at_the_end_loses_no_image(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    written = write_image(tmp_path / "file" / "a.png", PIXELS, RECIPE)
    assert written.rescued
    assert written.path == tmp_path / "here" / "a.png"
    assert str(written.path) in written.remark
    assert read_metadata(written.path) == RECIPE


def test_a_named_file_that_is_there_is_replaced_only_when_asked(tmp_path):
    one = RECIPE.of_image(0)
    (tmp_path / "b-1.png").write_text("somebody's", encoding="utf-8")
    with pytest.raises(UsageError, match=r"b-1\.png exists already"):
        paths_for(tmp_path / "b.png", RECIPE)
    assert len(paths_for(tmp_path / "b.png", RECIPE, overwrite=True)) == 3
    write_image(tmp_path / "b-1.png", PIXELS, one, overwrite=True)
    assert read_metadata(tmp_path / "b-1.png") == one


def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path):
    # Windows itself says no more than that the name is wrong.
    said = "cannot" if sys.platform == "win32" else "a name is too long"
    with pytest.raises(SetupError, match=said):
        paths_for(tmp_path / f"{'n' * 300}.png", RECIPE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_limit_of_file_sizes_is_seen_before_any_work(tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SetupError, match=r"files may have 4\.0 KiB here"):
            paths_for(tmp_path / "a.png", RECIPE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_more_than_the_free_space_is_refused_before_any_work(tmp_path):
    huge = replace(RECIPE, request=replace(REQUEST, width=10**7, height=10**7))
    with pytest.raises(SetupError, match="are needed in"):
        paths_for(tmp_path, huge)


def test_a_token_does_not_go_into_the_image(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", '"planted-secret-1"')
    shown = replace(
        RECIPE, request=replace(REQUEST, prompt='a "planted-secret-1" https://u:pass-word@host/x')
    )
    path = write_image(tmp_path / "a.png", PIXELS, shown).path
    assert b"planted-secret-1" not in path.read_bytes()
    assert b"pass-word" not in path.read_bytes()
    assert read_metadata(path).request.seed == 7


def test_the_package_of_an_image_is_found_beside_it(tmp_path, monkeypatch):
    (tmp_path / "päckage").mkdir()
    (tmp_path / "päckage" / "manifest.json").write_text("{}", encoding="utf-8")
    assert find_package(RECIPE, tmp_path / "a.png").samefile(tmp_path / "päckage")
    with pytest.raises(UsageError, match="called päckage"):
        find_package(RECIPE, tmp_path / "elsewhere" / "deep" / "a.png")


def test_the_package_of_an_image_is_found_where_an_installation_puts_it(tmp_path):
    made = tmp_path / "packages" / "päckage"
    made.mkdir(parents=True)
    (made / "manifest.json").write_text("{}", encoding="utf-8")
    assert find_package(RECIPE, tmp_path / "images" / "a.png").samefile(made)


def test_names_of_our_own_are_used_again_when_that_is_asked(tmp_path):
    one = RECIPE.of_image(0)
    (first,) = paths_for(tmp_path, one)
    write_image(first, PIXELS, one)
    assert paths_for(tmp_path, one, overwrite=True) == (first,)
    assert [path.name for path in paths_for(tmp_path, RECIPE)] == [
        "päckage-7-2.png",
        "päckage-8.png",
        "päckage-9.png",
    ]


def test_a_folder_in_the_place_of_a_numbered_image_is_named(tmp_path):
    (tmp_path / "a-2.png").mkdir()
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"a-2\.png is a folder") as caught:
            paths_for(tmp_path / "a.png", RECIPE, overwrite=overwrite)
        assert caught.value.code == "generate.output"


def test_the_image_of_a_package_is_found_among_others(tmp_path):
    assert find_image_of(tmp_path, "first", "00") is None
    write_image(tmp_path / "first.png", PIXELS, replace(RECIPE, fingerprint="11"))
    Image.fromarray(PIXELS).save(tmp_path / "first-2.png")
    assert find_image_of(tmp_path, "first", "00") is None
    write_image(tmp_path / "first-3.png", PIXELS, RECIPE)
    write_image(tmp_path / "first-5.png", PIXELS, replace(RECIPE, fingerprint="22"))
    assert find_image_of(tmp_path, "first", "00") == tmp_path / "first-3.png"
    assert find_image_of(tmp_path, "first", "22") is None


def test_metadata_is_one_line_in_the_order_of_names():
    text = RECIPE.as_json()
    assert text == json.dumps(json.loads(text), ensure_ascii=False, sort_keys=True)
    assert "馬" in text
    assert "\n" not in text


def test_a_whole_number_stands_for_a_fraction_and_a_text_for_none(tmp_path):
    from PIL import PngImagePlugin

    for value, read in ((7, True), (7.5, True), ("7", False), (True, False)):
        document = json.loads(RECIPE.as_json())
        document["request"]["guidance_scale"] = value
        notes = PngImagePlugin.PngInfo()
        notes.add_itxt("sdsetup", json.dumps(document))
        Image.fromarray(PIXELS).save(tmp_path / "x.png", pnginfo=notes)
        if read:
            assert read_metadata(tmp_path / "x.png").request.prompt == REQUEST.prompt
        else:
            with pytest.raises(SetupError, match="another version"):
                read_metadata(tmp_path / "x.png")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the folder that a process is in")
def test_an_image_goes_to_the_next_place_that_works(tmp_path, monkeypatch):
    """The current folder, the user's own, the one for temporary files."""
    gone, data, temporary = (tmp_path / name for name in ("gone", "data", "temporary"))
    for folder in (gone, data, temporary):
        folder.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(data))
    monkeypatch.setenv("HOME", str(data))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (tmp_path / "file").touch()
    wanted = tmp_path / "file" / "a.png"
    written = write_image(wanted, PIXELS, RECIPE)
    assert written.rescued
    assert written.path.is_relative_to(data)
    assert written.path.parts[-3:] == ("sdsetup", "images", "a.png")
    assert read_metadata(written.path) == RECIPE

    written.path.unlink()
    written.path.parent.rmdir()
    written.path.parent.touch()  # a file in the folder's place
    last = write_image(wanted, PIXELS, RECIPE)
    assert (last.path, last.rescued) == (temporary / "a.png", True)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(SetupError, match="cannot be written") as caught:
        write_image(wanted, PIXELS, RECIPE)
    assert caught.value.code == "generate.output"
    assert "--output" in caught.value.hint


@pytest.mark.skipif(sys.platform == "win32", reason="whole paths are limited there")
@pytest.mark.parametrize(("length", "kept"), [(120, True), (121, False)])
def test_a_long_name_is_shortened_where_its_place_fails(tmp_path, monkeypatch, length, kept):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "file").touch()
    name = f"{'n' * (length - 4)}.png"
    written = write_image(tmp_path / "file" / name, PIXELS, RECIPE)
    assert written.path.name == (name if kept else "image.png")


@pytest.mark.parametrize(("width", "height"), [(8, 8), (64, 64), (8, 6000), (1024, 512)])
def test_the_room_that_is_asked_for_is_a_little_more_than_an_image_of_noise_takes(tmp_path, width, height):
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    request = replace(REQUEST, width=width, height=height, prompt="\N{GRINNING FACE}" * 500)
    path = write_image(tmp_path / "a.png", noise, replace(RECIPE, request=request)).path
    assert path.stat().st_size <= _most_bytes(request) < path.stat().st_size * 1.02 + 20_000


def test_everything_that_made_an_image_is_in_it(tmp_path):
    adapters = (AppliedAdapter(path="a.safetensors", weight=1, sha256="1"),)
    embeddings = (AppliedEmbedding(path="cat.pt", token="<cat>", sha256="2"),)  # noqa: S106
    made = replace(RECIPE, adapters=adapters, embeddings=embeddings, version="0.1")
    path = write_image(tmp_path / "a.png", PIXELS, made).path
    assert read_metadata(path) == made
    assert as_document(made) == asdict(made)
    with Image.open(path) as image:
        assert image.info["Software"] == f"sdsetup {__version__}"


def test_metadata_is_that_of_the_package(tmp_path):
    package = open_for_images(toy_package.write(tmp_path / "toy"))
    made = metadata_of(REQUEST, package, "DmlExecutionProvider")
    assert (made.package, made.fingerprint, made.provider) == (
        "toy",
        package.fingerprint,
        "DmlExecutionProvider",
    )
    assert (made.version, made.adapters, made.embeddings) == (__version__, (), ())
    applied = (AppliedAdapter(path="a.safetensors", weight=0.5, sha256="1"),)
    assert metadata_of(REQUEST, package, "x", PackageAdapters(applied=applied)).adapters == applied


def test_no_output_and_folders_get_names_of_package_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["päckage-7.png", "päckage-8.png", "päckage-9.png"]
    assert paths_for(None, RECIPE) == tuple(map(Path, names))
    (tmp_path / "dotted.d").mkdir()
    assert paths_for(tmp_path / "dotted.d", RECIPE) == tuple(tmp_path / "dotted.d" / name for name in names)
    assert paths_for(tmp_path / "b.PNG", RECIPE.of_image(0)) == (tmp_path / "b.png",)


def test_an_image_names_no_package_outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "päckage").mkdir()
    (tmp_path / "päckage" / "manifest.json").write_text("{}", encoding="utf-8")
    assert find_package(RECIPE, Path("elsewhere") / "a.png") == Path("päckage")
    with pytest.raises(UsageError, match="was made with a package") as caught:
        find_package(replace(RECIPE, package="../" + tmp_path.name + "/päckage"), tmp_path / "a.png")
    assert caught.value.code == "image.package"

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sdsetup
from sdsetup.cli.app import main
from sdsetup.imaging.image_file import read_metadata
from tests.sdsetup import toy_package

WORDS = ["a red horse", "--seed", "5", "--steps", "5"]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return toy_package.write(tmp_path_factory.mktemp("packages") / "häuser mit garten")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(*arguments):
    """Run the verb on the CPU unless the test says where; DirectML has tests of its own."""
    chosen = {"--provider", "--adapter", "--device-id"} & set(arguments)
    where = [] if chosen or not arguments else ["--provider", "cpu"]
    return main(["generate", *map(str, arguments), *where])


def pixels(path):
    return np.asarray(Image.open(path))


def test_an_image_is_written_and_its_path_is_the_only_data(package, here, capsys):
    assert generate(package, *WORDS) == 0
    captured = capsys.readouterr()
    assert captured.out == "häuser mit garten-5.png\n"
    assert "ran 100.0% of" in captured.err
    assert pixels(here / "häuser mit garten-5.png").shape == (64, 64, 3)


def test_an_image_is_repeated_exactly_from_its_file(package, here):
    options = ["--negative-prompt", "blue", "--scheduler", "euler-ancestral", "--width", "72"]
    assert generate(package, *WORDS, *options, "--guidance-scale", "4", "-o", "a.png") == 0
    assert generate(package, "--from", "a.png", "-o", "b.png") == 0
    assert np.array_equal(pixels(here / "a.png"), pixels(here / "b.png"))
    assert read_metadata(here / "a.png") == read_metadata(here / "b.png")


def test_one_image_of_a_batch_is_repeated_alone(package, here):
    assert generate(package, *WORDS, "--images", "3", "-o", "c.png") == 0
    assert generate(package, "--from", "c-2.png", "-o", "d.png") == 0
    assert np.array_equal(pixels(here / "c-2.png"), pixels(here / "d.png"))


def test_options_change_a_repeated_recipe(package, here):
    assert generate(package, *WORDS, "-o", "a.png") == 0
    assert generate(package, "--from", "a.png", "--seed", "6", "-o", "b.png") == 0
    assert read_metadata(here / "b.png").request.seed == 6
    assert not np.array_equal(pixels(here / "a.png"), pixels(here / "b.png"))


def test_the_package_is_found_when_it_lies_here(package, monkeypatch, here):
    assert generate(package, *WORDS, "-o", here / "a.png") == 0
    monkeypatch.chdir(package.parent)
    assert generate("--from", here / "a.png", "-o", here / "b.png") == 0
    assert np.array_equal(pixels(here / "a.png"), pixels(here / "b.png"))


def test_another_package_than_the_recipe_s_is_said(package, here, capsys):
    assert generate(package, *WORDS, "-o", "a.png") == 0
    other = toy_package.write(here / "other", precision="fp16")
    assert generate(other, "--from", "a.png", "-o", "b.png") == 0
    assert "made with another package" in capsys.readouterr().err


def test_without_a_seed_each_image_is_another(package, here):
    assert generate(package, "a horse", "--steps", "4", "-o", "a.png") == 0
    assert generate(package, "a horse", "--steps", "4", "-o", "b.png") == 0
    assert read_metadata(here / "a.png").request.seed != read_metadata(here / "b.png").request.seed


def test_json_is_one_document_on_stdout(package, here, capsys):
    assert generate(package, *WORDS, "--images", "2", "-o", "a.png", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [Path(image["path"]).name for image in document["images"]] == ["a-1.png", "a-2.png"]
    assert document["metadata"]["request"]["seed"] == 5
    assert document["ran"]["provider"] == "CPUExecutionProvider"
    assert document["ran"]["submodels"]["unet"]["node_share"] == 1.0
    assert document["ran"]["submodels"]["unet"]["runs"] == 6


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "needs a package and a prompt"),
        (["{package}"], 2, "needs a package and a prompt"),
        (["nowhere", "a cat"], 1, "there is no package at nowhere"),
        (["{package}", "a cat", "--steps", "0"], 2, "--steps 0 is out of range"),
        (["{package}", "a cat", "--width", "65"], 2, "--width 65 does not work"),
        (["{package}", "a cat", "--scheduler", "magic"], 2, "no scheduler 'magic'"),
        (["{package}", "a cat", "--provider", "cuda"], 1, "CUDA cannot be used here"),
        (["{package}", "a cat", "--provider", "warp"], 2, "no provider 'warp'"),
        (["{package}", "a cat", "--adapter", "RX 6700"], 2, "'RX 6700'"),
        (["{package}", "a cat", "--device-id", "9"], 2, "number 9"),
        (["{package}", "a cat", "-o", "a.jpg"], 2, "written as PNG"),
        (["--from", "nothing.png"], 1, "there is no file nothing.png"),
    ],
)
def test_bad_input_is_one_message_and_no_image(package, here, capsys, arguments, status, message):
    filled = [str(package) if argument == "{package}" else argument for argument in arguments]
    assert generate(*filled) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("error:") == 1
    assert "next:" in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert list(here.iterdir()) == []


def test_an_unwritable_place_is_found_before_any_work(package, here, capsys):
    (here / "file").write_text("x", encoding="utf-8")
    assert generate(package, *WORDS, "-o", "file/a.png") == 1
    assert "cannot be written" in capsys.readouterr().err


def run_apart(*arguments, code="from sdsetup.cli.app import main; import sys; sys.exit(main(sys.argv[1:]))"):
    return [sys.executable, "-c", code, *map(str, arguments)]


def project_path():
    return os.environ | {"PYTHONPATH": str(Path(sdsetup.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}


def test_no_torch_diffusers_or_transformers_comes_into_the_process(package):
    code = (
        "import sys; from sdsetup.cli.app import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'diffusers', 'transformers', 'onnxscript'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    command = run_apart("generate", package, *WORDS, code=code)
    done = subprocess.run(
        command, env=project_path(), capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_ends_with_130_and_leaves_nothing(package, here):
    command = run_apart("generate", package, "a horse", "--steps", "900", "--width", "1024", "--images", "8")
    process = subprocess.Popen(
        command,
        env=project_path(),
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background makes them ignore Ctrl-C, and their children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "unet: loading" in line:
            break
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list(here.iterdir()) == []


def test_the_smoke_test_passes_and_keeps_its_image(package, here, capsys):
    assert main(["smoke-test", str(package), "--steps", "4", "-o", "images", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["passed"] is True
    assert "the smoke test passed" in captured.err
    assert len(list((here / "images").glob("*.png"))) == 1


def test_the_smoke_test_fails_on_a_black_image(here, capsys):
    weights = {"mix": np.zeros((3, 4, 1, 1), np.float32), "lift": np.float32([-1e4])}
    folder = toy_package.write(here / "black", change={"vae_decoder": weights})
    assert main(["smoke-test", str(folder), "--steps", "4", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["passed"] is False
    assert "is black" in captured.err


def test_what_was_asked_wrongly_is_told_before_a_device_is_chosen(package, here, capsys):
    (here / "there.png").write_bytes(b"")
    other = toy_package.write(here / "other")
    path = other / "vae_decoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "scaling_factor": 0.5}), "utf-8")
    for options in (["-o", "image.jpg"], ["-o", "there.png"], ["--steps", "0"], ["--refiner", other]):
        assert generate(package, *WORDS[:3], *options) == 2, options
        assert capsys.readouterr().err.startswith("error: "), options
    drawing = toy_package.write(here / "drawing", encodes=True)
    Image.new("RGB", (64, 64)).save("white.png")
    for options in (
        ["--init-image", "there.png", "--width", "64", "--height", "64"],
        ["--init-image", "white.png", "--mask", "there.png"],
    ):
        assert generate(drawing, *WORDS[:3], *options) == 1
        assert capsys.readouterr().err.startswith("error: there.png cannot be read as an image")
    assert main(["smoke-test", str(package), "-o", "image.txt"]) == 2
    assert capsys.readouterr().err.startswith("error: --output image.txt: images are written as PNG.")


def test_a_refiner_is_started_with_the_package(package, capsys):
    words = ("a horse", "--seed", "5", "--steps", "3", "--scheduler", "euler")
    assert generate(package, *words, "--refiner", str(package), "--refiner-start", "0.5") == 0
    said = capsys.readouterr().err
    assert said.count("running on CPU") == 1
    assert said.count("unet: loading") == 2


def test_one_step_is_no_steps(package, capsys):
    assert generate(package, "a horse", "--seed", "5", "--steps", "1") == 0
    assert ": 1 step (" in capsys.readouterr().err

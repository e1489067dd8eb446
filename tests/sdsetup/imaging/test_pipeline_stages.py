"""What each stage of an image hands to the next, by value: beside them stand Euler's steps in numpy."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from conversions.events import Advanced, Finished, Notice, Started, ignore
from conversions.providers.table import provider_for
from sdsetup.errors import SetupError
from sdsetup.imaging import pipeline as module
from sdsetup.imaging.feature_extractor import extract
from sdsetup.imaging.latent_noise import LatentNoise
from sdsetup.imaging.pipeline import Refiner
from sdsetup.imaging.request import Request, complete, scheduler_for
from sdsetup.runtime.devices import Device
from tests.sdsetup import toy_package
from tests.sdsetup.imaging.test_pipeline import pipeline_of

SCALING = 3.0  # of toy_package's autoencoder
REQUEST = Request(
    prompt="a red horse",
    negative_prompt="blue",
    seed=7,
    steps=6,
    guidance_scale=4.0,
    scheduler="euler",
    width=64,
    height=32,
    images=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_package.write(tmp_path_factory.mktemp("stages") / "package", encodes=True)


@pytest.fixture(scope="module")
def pipeline(folder):
    return pipeline_of(folder)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "image.png"
    colours = np.random.default_rng(3).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    Image.fromarray(colours).save(path)
    return str(path)


def mask_of(tmp_path, white):
    """Write a mask that is white in the given columns."""
    path = tmp_path / "mask.png"
    values = np.zeros((32, 64), np.uint8)
    values[:, white] = 255
    Image.fromarray(values).save(path)
    return str(path)


def conditions(pipeline, request):
    """Return the text encoder's states of the negative and the positive prompt, a row an image."""
    (run,) = pipeline.encode(request).runs
    return run["encoder_hidden_states"]


def encoded(pipeline, path, noise, blank=slice(0)):
    """Return an image's latents, of which the encoder's distribution is sampled with ``noise``.

    Columns that are to be blank are grey.
    """
    with Image.open(path) as opened:
        colours = np.asarray(opened.convert("RGB")).astype(np.float32) / 127.5 - 1
    colours[:, blank] = 0
    (spread,) = onnx.load(pipeline.package.folder / "vae_encoder" / "model.onnx").graph.initializer
    cells = colours.reshape(4, 8, 8, 8, 3).mean(axis=(1, 3))
    parameters = np.einsum("hwc,kc->khw", cells, numpy_helper.to_array(spread)[:, :, 0, 0])
    return SCALING * (parameters[:4] + np.exp(parameters[4:] / 2) * noise)


def euler(pipeline, request, clean=None, mask=None, first=0):
    """Take Euler's steps: ``clean`` are an initial image's latents, ``mask`` is 1 where they change."""
    scheduler = scheduler_for(request, pipeline.package.recipe)
    shape = (request.images, 4, request.height // 8, request.width // 8)
    start = LatentNoise.of(request.seed, request.images).draw(shape[1:])
    # Latents of zero under noise of one have the noise level's own size.
    sigmas = [
        scheduler.noised(np.zeros(1, np.float32), np.ones(1, np.float32), i).item()
        for i in range(len(scheduler.timesteps) + 1)
    ]
    from_noise = clean is None or (mask is not None and request.strength == 1)
    sample = scheduler.start(start).sample if from_noise else clean + sigmas[first] * start
    states = conditions(pipeline, request)
    for place in range(first, len(scheduler.timesteps)):
        seen = sample / np.sqrt(sigmas[place] ** 2 + 1)
        inputs = {
            "sample": np.concatenate([seen, seen]).astype(np.float32),
            "timestep": np.array([scheduler.timesteps[place]], np.float32),
            "encoder_hidden_states": states,
        }
        away, towards = np.split(pipeline.runner.run("unet", inputs)["out_sample"], 2)
        sample = sample + (sigmas[place + 1] - sigmas[place]) * (
            away + request.guidance_scale * (towards - away)
        )
        if mask is not None:
            sample = (1 - mask) * (clean + sigmas[place + 1] * start) + mask * sample
    return sample


def denoised(pipeline, request):
    """Go through the pipeline's own stages up to the latents."""
    request = complete(request, pipeline.package)
    noise = LatentNoise.of(request.seed, request.images)
    start = noise.draw((4, request.height // 8, request.width // 8))
    initial = pipeline.encode_initial(request, noise)
    return pipeline.denoise(request, pipeline.encode(request), initial, start, noise)


def drawn_second(request):
    """Return the noise that the encoder's sample is taken with: the first is the latents' own."""
    noise = LatentNoise.of(request.seed, request.images)
    shape = (4, request.height // 8, request.width // 8)
    noise.draw(shape)
    return noise.draw(shape)


def test_latents_from_text_are_eulers(pipeline):
    request = complete(REQUEST, pipeline.package)
    latents, evaluations = denoised(pipeline, REQUEST)
    assert evaluations == 6
    np.testing.assert_allclose(latents, euler(pipeline, request), atol=1e-4)


@pytest.mark.parametrize(("strength", "evaluations"), [(0.5, 3), (0.34, 2), (1.0, 6)])
def test_latents_from_an_image_begin_at_the_noise_of_its_strength(pipeline, image, strength, evaluations):
    request = complete(replace(REQUEST, init_image=image, strength=strength), pipeline.package)
    latents, count = denoised(pipeline, request)
    assert count == evaluations
    clean = encoded(pipeline, image, drawn_second(request))
    np.testing.assert_allclose(latents, euler(pipeline, request, clean, first=6 - evaluations), atol=1e-3)


@pytest.mark.parametrize(("strength", "evaluations"), [(0.5, 3), (1.0, 6)])
def test_where_a_mask_is_black_the_image_is_kept_as_noisy_as_the_rest(
    pipeline, image, tmp_path, strength, evaluations
):
    mask = mask_of(tmp_path, slice(16, 40))
    request = complete(replace(REQUEST, init_image=image, mask=mask, strength=strength), pipeline.package)
    latents, count = denoised(pipeline, request)
    assert count == evaluations
    clean = encoded(pipeline, image, drawn_second(request))
    changed = np.zeros((1, 1, 4, 8))
    changed[..., 2:5] = 1
    expected = euler(pipeline, request, clean, changed, first=6 - evaluations)
    np.testing.assert_allclose(latents, expected, atol=1e-3)
    np.testing.assert_allclose(latents[..., 5:], clean[..., 5:], atol=1e-4)


def test_a_white_mask_at_full_strength_leaves_nothing_of_the_image(pipeline, image, tmp_path):
    white = mask_of(tmp_path, slice(None))
    masked = pipeline.generate(replace(REQUEST, init_image=image, mask=white, strength=1.0))
    assert np.array_equal(masked.pixels, pipeline.generate(REQUEST).pixels)


def write_inpainting(folder):
    """Write a package whose U-Net reads the mask and the masked image beside the latents."""
    kernel = 0.2 * np.random.default_rng(5).standard_normal((4, 9, 3, 3)).astype(np.float32)
    graph = toy_package.GRAPHS["unet"].replace("4, height, width] sample,", "9, height, width] sample,")
    toy_package.write(folder, encodes=True, graphs={"unet": graph}, change={"unet": {"kernel": kernel}})
    toy_package.write_json(folder / "unet" / "config.json", {"in_channels": 9, "sample_size": 8})
    toy_package.write_manifest(folder)
    return pipeline_of(folder)


def test_a_denoiser_that_reads_the_mask_gets_the_image_without_the_masked_part(image, tmp_path):
    pipeline = write_inpainting(tmp_path / "package")
    mask = mask_of(tmp_path, slice(16, 40))
    small = np.zeros((1, 1, 4, 8), np.float32)
    small[..., 2:5] = 1
    for strength in (1.0, 0.5):
        request = complete(replace(REQUEST, init_image=image, mask=mask, strength=strength), pipeline.package)
        noise = LatentNoise.of(request.seed, request.images)
        noise.draw((4, 4, 8))
        initial = pipeline.encode_initial(request, noise)
        np.testing.assert_array_equal(initial.mask, small)
        again = LatentNoise.of(request.seed, request.images)
        draws = [again.draw((4, 4, 8)) for _ in range(3)]
        if strength == 1:
            assert initial.latents is None
        else:
            np.testing.assert_allclose(initial.latents, encoded(pipeline, image, draws[1]), atol=1e-4)
        blanked = encoded(pipeline, image, draws[1 if strength == 1 else 2], blank=slice(16, 40))
        np.testing.assert_allclose(initial.masked_latents, blanked, atol=1e-4)
        made = pipeline.generate(request)
        assert made.evaluations == 6 * strength
        assert made.pixels.std() > 2


def test_a_refiner_of_the_same_package_goes_on_with_the_same_steps(folder):
    for scheduler in ("euler", "euler_ancestral"):
        request = replace(REQUEST, scheduler=scheduler)
        alone = pipeline_of(folder).generate(request)
        second = pipeline_of(folder)
        base = replace(pipeline_of(folder), refiner=Refiner(pipeline=second, start=0.5))
        shared = base.generate(request)
        assert np.array_equal(shared.pixels, alone.pixels)
        assert shared.evaluations == alone.evaluations == 6
        counts = [len(each.runner.usage()["unet"].run_seconds) for each in (base, second)]
        assert counts == [3, 3]
        assert "vae_decoder" not in second.runner.usage()


def test_a_refiner_makes_what_an_initial_image_leaves_to_it(folder, image):
    request = replace(REQUEST, init_image=image, strength=0.9)
    alone = pipeline_of(folder).generate(request)
    second = pipeline_of(folder)
    base = replace(pipeline_of(folder), refiner=Refiner(pipeline=second, start=0.5))
    shared = base.generate(request)
    assert shared.evaluations == alone.evaluations == 5
    assert len(second.runner.usage()["unet"].run_seconds) == 3
    assert np.array_equal(shared.pixels, alone.pixels)


def test_each_stage_s_submodel_is_closed_before_the_next_is_opened(folder, tmp_path, image):
    checked = toy_package.write(tmp_path / "checked", encodes=True, objects_above=100.0)
    order = []

    def listen(event):
        if isinstance(event, Started) and event.task.startswith("load-"):
            order.append((event.task.removeprefix("load-"), frozenset(opened(first))))

    def opened(pipeline):
        return pipeline.runner._open

    first = pipeline_of(checked, listen, low_memory=True)
    request = replace(REQUEST, init_image=image, strength=0.5, images=1)
    first.generate(request)
    names = ["text_encoder", "vae_encoder", "unet", "vae_decoder", "safety_checker"]
    assert order == [(name, frozenset()) for name in names]
    assert not opened(first)

    second = pipeline_of(folder, low_memory=True)
    replace(first, refiner=Refiner(pipeline=second, start=0.8)).generate(request)
    assert not opened(second)


def test_a_step_is_measured_without_an_image(folder, image):
    events = []
    pipeline = pipeline_of(folder, events.append)
    for count in (1, 2):
        seconds = pipeline.step_seconds(replace(REQUEST, init_image=image, strength=0.5))
        runs = {name: used.run_seconds for name, used in pipeline.runner.usage().items()}
        assert len(runs["unet"]) == count
        assert seconds == runs["unet"][-1] > 0
        assert "vae_decoder" not in runs
        assert len(runs["vae_encoder"]) == count
    assert not any(event.task == "denoise" for event in events if isinstance(event, Started))


def test_progress_is_told_from_the_first_to_the_last_step(folder, image):
    events = []
    made = pipeline_of(folder, events.append).generate(replace(REQUEST, init_image=image, strength=0.5))
    told = [event for event in events if getattr(event, "task", "") == "denoise"]
    assert isinstance(told[0], Started)
    assert (told[0].total, told[0].unit) == (3, "steps")
    assert told[1:-1] == [Advanced(task="denoise", done=done) for done in (1, 2, 3)]
    assert told[-1] == Finished(task="denoise", note="3 steps")
    assert made.evaluations == 3
    assert 0 < made.denoise_seconds < made.total_seconds


def test_pixels_are_the_decoders_output_from_minus_one_to_one(tmp_path):
    open_ended = toy_package.GRAPHS["vae_decoder"].replace(
        "sample = Tanh(lifted)", "sample = Identity(lifted)"
    )
    pipeline = pipeline_of(toy_package.write(tmp_path / "package", graphs={"vae_decoder": open_ended}))
    latents = 8 * np.random.default_rng(4).standard_normal((2, 4, 3, 5)).astype(np.float32)
    decoded = np.concatenate(
        [
            pipeline.runner.run("vae_decoder", {"latent_sample": each[None] / SCALING})["sample"]
            for each in latents
        ]
    )
    assert decoded.min() < -1.1
    assert decoded.max() > 1.1
    expected = np.rint(np.clip((decoded + 1) * 127.5, 0, 255)).transpose(0, 2, 3, 1)
    found = pipeline.decode(latents)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1  # halves may round either way
    assert (found == expected).mean() > 0.99


def test_only_the_images_that_are_objected_to_are_black(folder, tmp_path):
    plain = pipeline_of(folder).generate(REQUEST).pixels
    means = extract(plain, {}).mean(axis=(1, 2, 3))
    brighter = int(np.argmax(means))
    events = []
    strict = pipeline_of(
        toy_package.write(tmp_path / "strict", encodes=True, objects_above=float(means.mean())), events.append
    )
    made = strict.generate(REQUEST)
    assert made.flagged == tuple(place == brighter for place in range(2))
    assert not made.pixels[brighter].any()
    assert np.array_equal(made.pixels[1 - brighter], plain[1 - brighter])
    (notice,) = (event.text for event in events if isinstance(event, Notice))
    assert f"image {brighter + 1}:" in notice

    unasked = strict.generate(REQUEST, check_safety=False)
    assert unasked.flagged == (False, False)
    assert np.array_equal(unasked.pixels, plain)


def test_the_safety_checker_sees_pixels_from_nought_to_one(tmp_path):
    by_pixels = toy_package.GRAPHS["safety_checker"].replace(
        "(clip_input, all_but_first)", "(images, all_but_first)"
    )
    plain = pipeline_of(toy_package.write(tmp_path / "plain")).generate(REQUEST).pixels
    mean = float(plain.mean() / 255)
    for limit, objects in ((mean - 0.2, True), (mean + 0.2, False)):
        folder = toy_package.write(
            tmp_path / str(objects), graphs={"safety_checker": by_pixels}, objects_above=limit
        )
        assert pipeline_of(folder).generate(REQUEST).flagged == (objects, objects)


def test_numbers_that_stay_infinite_are_an_error_with_a_way_on(tmp_path):
    broken = toy_package.write(
        tmp_path / "nan",
        precision="fp16",
        change={"vae_decoder": {"mix": np.full((3, 4, 1, 1), np.nan, np.float32)}},
    )
    pipeline = pipeline_of(broken)
    with pytest.raises(SetupError, match=r"vae_decoder gave .* \(in sample\), in float32 too") as caught:
        pipeline.generate(REQUEST)
    assert caught.value.code == "generate.not_finite"
    assert f"sdsetup verify {broken}" in caught.value.hint
    assert pipeline.runner.usage()["vae_decoder"].upcast
    with pytest.raises(SetupError, match="in float32 too"):
        pipeline.generate(REQUEST)  # it is float32 already: nothing is left to try


class OnDirectML:
    """The same runner, said to be a GPU."""

    def __init__(self, runner):
        self._runner = runner
        self.device = Device(provider=provider_for("directml"), name="a GPU")

    def __getattr__(self, name):
        return getattr(self._runner, name)


def test_long_waits_are_announced_where_there_is_no_gpu(folder, monkeypatch):
    events = []
    pipeline = pipeline_of(folder, events.append)
    pipeline.generate(REQUEST)
    assert not [event for event in events if isinstance(event, Notice)]

    monkeypatch.setattr(module, "_WORTH_SAYING_SECONDS", 0.0)
    pipeline.generate(REQUEST)
    (notice,) = (event.text for event in events if isinstance(event, Notice))
    assert notice.startswith("The other 5 steps take ")

    events.clear()
    replace(pipeline, runner=OnDirectML(pipeline.runner)).generate(REQUEST)
    assert not [event for event in events if isinstance(event, Notice)]


def test_nobody_has_to_listen(folder):
    assert pipeline_of(folder).listener is ignore

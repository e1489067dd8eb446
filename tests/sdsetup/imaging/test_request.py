"""What a request leaves out comes from the package; what cannot be done is refused by the option's name."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conversions.package.layout import Package
from conversions.recipe import ImageSize, NoiseLevels
from sdsetup.errors import UsageError
from sdsetup.imaging.request import Request, complete, first_index, scheduler_for
from sdsetup.runtime.package import open_for_images
from tests.sdsetup import toy_package

PLAIN = Request(prompt="a horse")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_package.write(tmp_path_factory.mktemp("request") / "package", encodes=True)


@pytest.fixture(scope="module")
def package(folder: Path) -> Package:
    return open_for_images(folder)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(path)
    return str(path)


def refused(request: Request, package: Package) -> UsageError:
    with pytest.raises(UsageError) as caught:
        complete(request, package)
    return caught.value


def test_what_is_left_out_is_the_checkpoints_own(package: Package) -> None:
    found = complete(PLAIN, package)
    defaults = package.recipe.defaults
    assert found == replace(
        PLAIN,
        width=64,
        height=64,
        steps=defaults.steps,
        guidance_scale=defaults.guidance_scale,
        scheduler="pndm",
    )
    assert found.strength is None
    assert found.size == ImageSize(width=64, height=64, images=1)


def test_what_is_said_is_kept(package: Package) -> None:
    said = replace(
        PLAIN, width=72, height=8, steps=3, guidance_scale=0.0, scheduler="euler", images=3, seed=5, eta=0.0
    )
    assert complete(said, package) == said
    assert complete(said, package).size == ImageSize(width=72, height=8, images=3)


def test_a_task_is_told_by_the_images_that_are_named(package: Package, image: str) -> None:
    assert PLAIN.task == "text-to-image"
    assert replace(PLAIN, init_image=image).task == "image-to-image"
    assert replace(PLAIN, init_image=image, mask=image).task == "inpainting"
    for task, changes in (("image-to-image", {}), ("inpainting", {"mask": image})):
        found = complete(replace(PLAIN, init_image=image, **changes), package)
        assert found.strength == package.recipe.defaults.strength[task]
    assert complete(replace(PLAIN, init_image=image, strength=0.3), package).strength == 0.3


def test_the_size_of_an_initial_image_is_fitted_and_can_be_said(package: Package, image: str) -> None:
    found = complete(replace(PLAIN, init_image=image), package)
    assert (found.width, found.height) == (88, 48)  # of 64 x 64 pixels in all
    found = complete(replace(PLAIN, init_image=image, width=64), package)
    assert (found.width, found.height) == (64, 48)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"images": 0}, "generate.images", "--images 0"),
        ({"images": 65}, "generate.images", "--images 65"),
        ({"seed": -1}, "generate.seed", "--seed -1"),
        ({"seed": 2**63}, "generate.seed", f"--seed {2**63}"),
        ({"guidance_scale": math.inf}, "generate.guidance", "--guidance-scale inf"),
        ({"guidance_scale": math.nan}, "generate.guidance", "--guidance-scale nan"),
        ({"refiner_start": 0.0}, "generate.refiner", "--refiner-start 0 "),
        ({"refiner_start": 1.0}, "generate.refiner", "--refiner-start 1 "),
        ({"clip_skip": -1}, "generate.clip_skip", "--clip-skip -1"),
        ({"clip_skip": 12}, "generate.clip_skip", "--clip-skip 12"),
        ({"width": 0}, "generate.size", "--width 0"),
        ({"width": 4}, "generate.size", "--width 4"),
        ({"height": -8}, "generate.size", "--height -8"),
        ({"width": 65}, "generate.size", "--width 65"),
        ({"strength": 0.5}, "generate.strength", "--strength needs"),
        ({"mask": "x.png"}, "generate.mask", "--mask needs"),
    ],
)
def test_what_is_out_of_range_is_refused(
    package: Package, changes: dict[str, Any], code: str, said: str
) -> None:
    error = refused(replace(PLAIN, **changes), package)
    assert error.code == code
    assert said in error.message
    assert error.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"images": 1},
        {"images": 64},
        {"seed": 0},
        {"seed": 2**63 - 1},
        {"guidance_scale": -3.0},
        {"refiner_start": 0.001},
        {"refiner_start": 0.999},
        {"clip_skip": 11},
        {"width": 8, "height": 8},
    ],
)
def test_the_last_values_of_a_range_are_taken(package: Package, changes: dict[str, Any]) -> None:
    assert package.recipe.most_clip_skip == 11
    complete(replace(PLAIN, **changes), package)


@pytest.mark.parametrize(
    ("side", "hint"),
    [(1, "--width 8 or --width 16"), (65, "--width 64 or --width 72"), (-20, "--width 8 or --width 16")],
)
def test_sizes_that_work_are_the_nearest_ones(package: Package, side: int, hint: str) -> None:
    assert hint in refused(replace(PLAIN, width=side), package).hint


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.001, math.nan])
def test_a_strength_is_above_nought_and_up_to_one(package: Package, image: str, strength: float) -> None:
    error = refused(replace(PLAIN, init_image=image, strength=strength), package)
    assert (error.code, "--strength" in error.message) == ("generate.strength", True)


def test_a_strength_that_leaves_no_step_is_refused(package: Package, image: str) -> None:
    request = replace(PLAIN, init_image=image, steps=10, scheduler="euler")
    error = refused(replace(request, strength=0.09), package)
    assert error.code == "generate.strength"
    assert "--strength 0.09 of 10 steps leaves none" in error.message
    found = complete(replace(request, strength=0.1), package)
    scheduler = scheduler_for(found, package.recipe)
    assert first_index(found, scheduler, package.recipe) == 9
    assert first_index(complete(PLAIN, package), scheduler, package.recipe) == 0


def test_a_package_without_an_encoder_starts_from_noise_alone(tmp_path: Path, image: str) -> None:
    plain = open_for_images(toy_package.write(tmp_path / "plain"))
    error = refused(replace(PLAIN, init_image=image), plain)
    assert error.code == "generate.encoder"
    complete(PLAIN, plain)


class OtherRecipe:
    """A recipe of a package with some answers of another family's."""

    def __init__(self, recipe: Any, **answers: Any) -> None:
        self._recipe, self._answers = recipe, answers

    def __getattr__(self, name: str) -> Any:
        answers = self.__dict__["_answers"]
        return answers[name] if name in answers else getattr(self.__dict__["_recipe"], name)


class OtherPackage:
    """A package with such a recipe."""

    def __init__(self, package: Package, **answers: Any) -> None:
        self._package, self.recipe = package, OtherRecipe(package.recipe, **answers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_package"], name)


@pytest.mark.parametrize(
    ("tasks", "said", "hint"),
    [
        ({"inpainting"}, "for inpainting;", "--init-image IMAGE --mask MASK"),
        ({"inpainting", "image-to-image"}, "for image-to-image and inpainting;", "add --init-image IMAGE."),
        (set(), "for ;", "another checkpoint"),
    ],
)
def test_a_task_that_a_package_is_not_for_is_refused(
    package: Package, tasks: set[str], said: str, hint: str
) -> None:
    error = refused(PLAIN, OtherPackage(package, tasks=frozenset(tasks)))  # type: ignore[arg-type]
    assert error.code == "generate.task"
    assert said in error.message
    assert "text-to-image was asked for" in error.message
    assert hint in error.hint


def test_a_side_beyond_the_known_positions_is_refused(package: Package) -> None:
    limited: Any = OtherPackage(package, largest_side=128)
    complete(replace(PLAIN, width=128, height=128), limited)
    error = refused(replace(PLAIN, height=136), limited)
    assert (error.code, "--height 136 is too large" in error.message) == ("generate.size", True)
    assert "--height 128" in error.hint


FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0, "num_train_timesteps": 1000}


def test_noise_levels_of_a_model_are_those_of_its_own_scheduler_alone(package: Package) -> None:
    sigmas = (1.0, 0.7, 0.2)
    asked: list[tuple[int, ImageSize]] = []

    def levels(steps: int, size: ImageSize) -> NoiseLevels:
        asked.append((steps, size))
        return NoiseLevels(image_tokens=16, mu=0.0, sigmas=sigmas)

    flow: Any = OtherPackage(package, scheduler_config=FLOW, noise_levels=levels)
    found = complete(replace(PLAIN, steps=3), flow)
    own = scheduler_for(found, flow.recipe)
    np.testing.assert_allclose(own.timesteps, [1000 * sigma for sigma in sigmas], rtol=1e-5)
    assert asked[-1] == (3, ImageSize(width=64, height=64))
    other = scheduler_for(replace(found, scheduler="flow_match_heun"), flow.recipe)
    assert len(other.timesteps) == 5
    assert not np.allclose(other.timesteps[0], own.timesteps[1])


def test_a_shift_follows_the_size_where_the_recipe_gives_none(package: Package) -> None:
    shifted = {
        **FLOW,
        "use_dynamic_shifting": True,
        "base_image_seq_len": 16,
        "max_image_seq_len": 64,
        "base_shift": 0.0,
        "max_shift": 1.0,
    }
    steps = {}
    for tokens in (16, 64):
        flow: Any = OtherPackage(
            package,
            scheduler_config=shifted,
            noise_levels=lambda *_, tokens=tokens: NoiseLevels(image_tokens=tokens),
        )
        steps[tokens] = scheduler_for(complete(replace(PLAIN, steps=4), flow), flow.recipe).timesteps
    assert steps[16][1] < steps[64][1]


def test_distilled_models_make_all_steps_of_an_image_closer_together(package: Package, image: str) -> None:
    distilled: Any = OtherPackage(package, distilled_steps=True)
    request = replace(PLAIN, init_image=image, steps=4, strength=0.5)
    for scheduler, begins in (("lcm", 0), ("tcd", 0), ("euler", 2)):
        found = complete(replace(request, scheduler=scheduler), distilled)
        planned = scheduler_for(found, distilled.recipe)
        assert first_index(found, planned, distilled.recipe) == begins
        assert len(planned.timesteps) == 4
        assert (planned.timesteps[0] < 600) is (begins == 0)
    # Neither from a text, nor with a mask, nor by other models.
    for changes, known in (({"mask": image}, distilled), ({}, package)):
        found = complete(replace(request, scheduler="lcm", **changes), known)
        planned = scheduler_for(found, known.recipe)
        assert first_index(found, planned, known.recipe) == 2
        assert planned.timesteps[0] > 600


def test_an_initial_image_that_a_package_does_not_take_is_to_be_left_out(package: Package) -> None:
    texts: Any = OtherPackage(package, tasks=frozenset({"text-to-image"}))
    error = refused(replace(PLAIN, init_image="a.png"), texts)
    assert error.code == "generate.task"
    assert error.hint == "leave --init-image out, or use another model."

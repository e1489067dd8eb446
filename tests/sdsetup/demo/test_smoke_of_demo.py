"""The demo's smoke test on its real package: it passes, and it notices what would ruin images."""

import json
import shutil

import numpy as np
import pytest

from conversions.events import ignore
from sdsetup.checkpoint_source import CheckpointRequest
from sdsetup.errors import SetupError
from sdsetup.imaging import smoke_test
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.workflow import ConvertRequest, convert_model
from tests.sdsetup.imaging.test_pipeline import pipeline_of

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "package"
    convert_model(
        ConvertRequest(checkpoint_request=CheckpointRequest(model="demo"), output=folder, verify=False),
        ignore,
    )
    return folder


class Tampered:
    """A runner that changes what one submodel answers."""

    def __init__(self, runner, submodel, change):
        self._runner, self._submodel, self._change = runner, submodel, change

    def __getattr__(self, name):
        return getattr(self._runner, name)

    def run(self, submodel, inputs):
        outputs = self._runner.run(submodel, inputs)
        return (
            {name: self._change(value) for name, value in outputs.items()}
            if submodel == self._submodel
            else outputs
        )


def smoke_of(pipeline):
    outcomes = smoke_test.smoke_test(pipeline, smoke_test.trials_for(pipeline.package.manifest), steps=20)
    smoke_test.raise_for(outcomes)
    return outcomes


def tampered(folder, submodel, change):
    pipeline = pipeline_of(folder)
    return Pipeline(package=pipeline.package, runner=Tampered(pipeline.runner, submodel, change))


def test_a_busy_machine_makes_its_images_in_all_their_steps(package):
    pipeline = pipeline_of(package)
    trials = smoke_test.trials_for(pipeline.package.manifest)
    outcomes = smoke_test.smoke_test(pipeline, trials, steps=20, limit_seconds=1e-6)
    smoke_test.raise_for(outcomes)
    assert {outcome.request.steps for outcome in outcomes} == {20}


def test_the_demo_draws_what_its_captions_say(package):
    assert len(smoke_of(pipeline_of(package))) >= 3


def test_ignored_text_is_noticed(package):
    with pytest.raises(SetupError, match=r"images are wrong"):
        smoke_of(tampered(package, "text_encoder", np.zeros_like))


def test_guidance_of_the_wrong_sign_is_noticed(package):
    def swapped(value):
        return np.concatenate(np.split(value, 2)[::-1])

    with pytest.raises(SetupError, match=r"images are wrong"):
        smoke_of(tampered(package, "unet", swapped))


def test_wrongly_scaled_latents_are_noticed(package, tmp_path):
    folder = tmp_path / "unscaled"
    shutil.copytree(package, folder)
    path = folder / "vae_decoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scaling_factor": 1.0}))
    with pytest.raises(SetupError, match=r"images are wrong"):
        smoke_of(pipeline_of(folder))

"""Drive ours and diffusers' schedulers with the same made-up model and noise, and compare every sample."""

import importlib
import math
import sys
import types
import warnings

import numpy as np
import pytest

from sdsetup.imaging.schedulers import FLOW_NAMES, make_scheduler
from sdsetup.imaging.schedulers.registry import ENTRIES

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
SD14 = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
CLASSES = {entry.name: entry.class_name for entry in ENTRIES}
SHAPE = (2, 4, 6, 5)


def field(sample, timestep, weights):
    """Be a smooth stand-in for a model, tame enough that a rounding error does not grow by itself."""
    turned = np.einsum("oc,bchw->bohw", weights, sample)
    return np.tanh(turned + np.float32(timestep) / np.float32(500) - 1).astype(np.float32)


class BrownianPath:
    """Noise for diffusers' DPMSolverSDEScheduler: one falling walk over sigma, drawn as asked for."""

    def __init__(self, draws):
        self.draws, self.begin, self.values = draws, None, {}

    def __call__(self, sigma, following):
        import torch

        sigma, following = float(sigma), float(following)
        if sigma != self.begin:
            self.begin, self.values = sigma, {sigma: np.zeros(SHAPE, np.float64)}
        reached = min(self.values)
        fresh = math.sqrt(reached - following) * next(self.draws).astype(np.float64)
        self.values[following] = self.values[reached] + fresh
        return torch.from_numpy((self.values[following] / math.sqrt(sigma - following)).astype(np.float32))


def theirs_made(name, config):
    """Make diffusers' scheduler; its Brownian noise alone needs torchsde, which is not installed."""
    import diffusers.schedulers

    if name == "dpmpp_2m_sde":
        config = config | {"algorithm_type": "sde-dpmsolver++"}
    if name == "dpmpp_sde":
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
            module = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
        return module.DPMSolverSDEScheduler.from_config(config)
    return getattr(diffusers.schedulers, CLASSES[name]).from_config(config)


def theirs(name, config, steps, noise, weights, draws, *, strength, eta, mu, sigmas, origin):
    import torch

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        scheduler = theirs_made(name, config)
        module = sys.modules[type(scheduler).__module__]
        if sigmas is not None:
            scheduler.set_timesteps(sigmas=sigmas, mu=mu)
        elif mu is not None:
            scheduler.set_timesteps(steps, mu=mu)
        elif origin is not None:
            scheduler.set_timesteps(steps, original_inference_steps=origin)
        else:
            scheduler.set_timesteps(steps)
        begin = 0
        if strength is not None:
            # get_timesteps of StableDiffusionImg2ImgPipeline and of FluxImg2ImgPipeline
            if name in FLOW_NAMES:
                begin = int(max(steps - min(steps * strength, steps), 0)) * scheduler.order
            else:
                begin = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        if name == "deis":
            # Its factors are differences of near numbers: float32 is off by up to 5e-5 there, ours by 5e-6.
            scheduler.sigmas = scheduler.sigmas.double()
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", lambda *_, **__: torch.from_numpy(next(draws)))
        if name == "dpmpp_sde":
            patch.setattr(module, "BrownianTreeNoiseSampler", lambda *_, **__: BrownianPath(draws))
        extra = {"eta": eta} if name in ("ddim", "tcd") else {}
        timesteps = scheduler.timesteps[begin:]
        if strength is None:
            sample = torch.from_numpy(noise) * getattr(scheduler, "init_noise_sigma", 1.0)
        else:
            clean = torch.from_numpy(np.roll(noise, 1, axis=2))
            sample = blended(scheduler, clean, torch.from_numpy(noise), timesteps)
        points = [sample.numpy()]
        for timestep in timesteps:
            seen = sample
            if hasattr(scheduler, "scale_model_input"):
                seen = scheduler.scale_model_input(sample, timestep)
            output = torch.from_numpy(field(seen.numpy(), float(timestep), weights))
            sample = scheduler.step(output, timestep, sample, **extra).prev_sample
            points.append(sample.numpy())
        return [float(timestep) for timestep in scheduler.timesteps], points


def blended(scheduler, clean, noise, timesteps):
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(clean, noise, timesteps[:1])
    return scheduler.scale_noise(clean, timesteps[:1], noise)


def ours(name, config, steps, noise, weights, draws, *, strength=None, **options):
    scheduler = make_scheduler(name, config, steps, **options)
    if strength is None:
        state = scheduler.start(noise)
    else:
        begin = scheduler.first_index(strength)
        state = scheduler.resume(scheduler.noised(np.roll(noise, 1, axis=2), noise, begin), begin)
    points = [state.sample]
    for timestep in scheduler.timesteps[state.index :]:
        output = field(scheduler.model_input(state), timestep, weights)
        fresh = next(draws) if scheduler.wants_noise(state) else None
        state = scheduler.advance(state, output, fresh)
        assert state.sample.dtype == np.float32
        points.append(state.sample)
    assert state.index == len(scheduler.timesteps)
    return list(scheduler.timesteps), points


def compare(name, config, steps, *, strength=None, eta=0.0, mu=None, sigmas=None, origin=None):
    generator = np.random.default_rng(7)
    noise = generator.standard_normal(SHAPE, dtype=np.float32)
    weights = 0.4 * generator.standard_normal((4, 4)).astype(np.float32)
    draws = [generator.standard_normal(SHAPE, dtype=np.float32) for _ in range(2 * steps + 20)]
    expected_times, expected = theirs(
        name,
        config,
        steps,
        noise,
        weights,
        iter(draws),
        strength=strength,
        eta=eta,
        mu=mu,
        sigmas=sigmas,
        origin=origin,
    )
    times, points = ours(
        name,
        config,
        steps,
        noise,
        weights,
        iter(draws),
        strength=strength,
        eta=eta,
        mu=mu,
        sigmas=sigmas,
        original_inference_steps=origin,
    )
    np.testing.assert_allclose(times, expected_times, rtol=1e-6, atol=1e-4)
    assert len(points) == len(expected)
    assert np.all(np.isfinite(points[-1]))
    # float32 rounds relative to the largest numbers that a trajectory has gone through.
    scale = 0.0
    for place, (point, reference) in enumerate(zip(points, expected, strict=True)):
        scale = max(scale, float(np.abs(reference).max()))
        assert float(np.abs(point - reference).max()) <= 1e-5 * scale, f"at evaluation {place}"

"""Flow matching: straight paths from noise to image, walked by Euler's or Heun's method.

Source: Lipman et al. 2022, arXiv:2210.02747; Esser et al. 2024, arXiv:2403.03206, for the shift; diffusers
0.42, ``schedulers/scheduling_flow_match_euler_discrete.py`` and ``scheduling_flow_match_heun_discrete.py``,
whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.plan import Plan
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_spacing import Levels, respaced
from sdsetup.imaging.schedulers.variance_exploding import as_floats


@dataclass(frozen=True, kw_only=True)
class FlowPlan(Plan):
    """A trajectory along which noise falls from one to nothing and the image rises to one.

    Attributes:
        sigmas: The noise's share at the beginning of each step, and where the last one ends.
    """

    sigmas: tuple[float, ...]

    def first_index(self, strength: float) -> int:
        """Return where image to image begins: rounded otherwise than for other models.

        Source: diffusers 0.42, ``get_timesteps`` of the image-to-image pipelines of Stable Diffusion 3 and
        Flux.
        """
        self._check_strength(strength)
        skipped = int(max(self.steps - min(self.steps * strength, self.steps), 0))
        return min(skipped * self.evaluations_per_step, len(self.timesteps))

    def denoised(self, state: State, output: Floats) -> Floats:
        """Return the latents without noise that the predicted velocity leads to."""
        return state.sample - self._share(state.index) * output

    def _noised(self, clean: Floats, noise: Floats, index: int) -> Floats:
        share = self._share(index)
        return share * noise + (np.float32(1) - share) * clean

    def _share(self, index: int) -> np.float32:
        """Return the noise's share at an evaluation."""
        return np.float32(self.sigmas[(index + self.evaluations_per_step - 1) // self.evaluations_per_step])


@dataclass(frozen=True, kw_only=True)
class FlowMatchEuler(FlowPlan):
    """One evaluation a step."""

    def wants_noise(self, state: State) -> bool:
        """Only with ``stochastic_sampling``, and not where the path ends without noise."""
        return self.settings.stochastic_sampling and self.sigmas[state.index + 1] > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Follow the predicted velocity, or go to the predicted image and add fresh noise to it."""
        sigma, following = self.sigmas[state.index : state.index + 2]
        if self.settings.stochastic_sampling:
            sample = np.float32(1 - following) * (state.sample - np.float32(sigma) * output)
            if noise is not None:
                sample = sample + np.float32(following) * noise
        else:
            sample = state.sample + np.float32(following - sigma) * output
        return State(index=state.index + 1, sample=sample, begin=state.begin)


@dataclass(frozen=True, kw_only=True)
class FlowMatchHeun(FlowPlan):
    """Two evaluations a step, one in the last."""

    evaluations_per_step: ClassVar[int] = 2

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:  # noqa: ARG002
        """Go to the step's end, or go again from its beginning with the mean of both velocities."""
        step, second = divmod(state.index, 2)
        reach = np.float32(self.sigmas[step + 1] - self.sigmas[step])
        if not second:
            return State(
                index=state.index + 1,
                sample=state.sample + output * reach,
                begin=state.begin,
                history=(output,),
                anchor=state.sample,
            )
        assert state.anchor is not None
        mean = (state.history[-1] + output) * np.float32(0.5)
        return State(index=state.index + 1, sample=state.anchor + mean * reach, begin=state.begin)


def resolution_mu(settings: SchedulerConfig, image_tokens: int) -> float:
    """Return the log of the shift for an image's size: a straight line between two sizes.

    Args:
        settings: Holds the two sizes and their shifts.
        image_tokens: Tokens that the model makes of the latents.

    Source: diffusers 0.42, ``calculate_shift`` in pipelines/flux/pipeline_flux.py.
    """
    tokens = settings.max_image_seq_len - settings.base_image_seq_len
    slope = (settings.max_shift - settings.base_shift) / tokens
    return image_tokens * slope + (settings.base_shift - slope * settings.base_image_seq_len)


def time_shifted(settings: SchedulerConfig, mu: float, sigmas: Levels) -> Levels:
    """Shift noise levels towards noise, as more pixels need.

    Source: diffusers 0.42, ``time_shift`` in schedulers/scheduling_flow_match_euler_discrete.py.
    """
    factor = mu if settings.time_shift_type == "linear" else math.exp(mu)
    shifted: Levels = factor / (factor + (1 / sigmas - 1))
    return shifted


def stretched(settings: SchedulerConfig, sigmas: Levels) -> Levels:
    """Stretch noise levels so that the last one is the configuration's ``shift_terminal``."""
    if not settings.shift_terminal:
        return sigmas
    scale = (1 - sigmas[-1]) / (1 - settings.shift_terminal)
    stretched_: Levels = 1 - (1 - sigmas) / scale
    return stretched_


def _shifted(settings: SchedulerConfig, sigmas: Levels) -> Levels:
    shifted: Levels = settings.shift * sigmas / (1 + (settings.shift - 1) * sigmas)
    return shifted


def _ends(settings: SchedulerConfig) -> tuple[float, float]:
    """Return the highest and lowest noise level of training, which the class shifts a first time."""
    ends = np.array([settings.num_train_timesteps, 1], dtype=np.float32)
    ends = ends / np.float32(settings.num_train_timesteps)
    if not settings.use_dynamic_shifting:
        shift = np.float32(settings.shift)
        ends = shift * ends / (np.float32(1) + (shift - np.float32(1)) * ends)
    return float(ends[0]), float(ends[1])


def _levels(settings: SchedulerConfig, options: Options) -> Levels:
    train = settings.num_train_timesteps
    if options.sigmas is None:
        high, low = _ends(settings)
        sigmas = np.linspace(high * train, low * train, options.steps) / train
    else:
        sigmas = np.array(options.sigmas, dtype=np.float32).astype(np.float64)
    if settings.use_dynamic_shifting:
        if options.mu is None:
            raise UsageError(
                "scheduler.mu", "this model's noise levels depend on the image's size: mu is missing."
            )
        sigmas = time_shifted(settings, options.mu, sigmas)
    else:
        sigmas = _shifted(settings, sigmas)
    sigmas = stretched(settings, sigmas)
    other = respaced(settings, sigmas, options.steps)
    return sigmas if other is None else other


def make(settings: SchedulerConfig, options: Options) -> FlowMatchEuler:
    """Plan ``steps`` evaluations.

    Raises:
        UsageError: The configuration wants mu, and there is none, or other sigmas than steps.
    """
    if options.sigmas is not None and len(options.sigmas) != options.steps:
        raise UsageError(
            "scheduler.sigmas", f"{len(options.sigmas)} sigmas were given for {options.steps} steps."
        )
    sigmas = _levels(settings, options).astype(np.float32)
    end = 0.0
    if settings.invert_sigmas:
        sigmas, end = np.float32(1) - sigmas, 1.0
    return FlowMatchEuler(
        settings=settings,
        timesteps=as_floats(sigmas * np.float32(settings.num_train_timesteps)),
        steps=options.steps,
        sigmas=as_floats(np.append(sigmas, np.float32(end))),
    )


def make_heun(settings: SchedulerConfig, options: Options) -> FlowMatchHeun:
    """Plan ``2 * steps - 1`` evaluations."""
    sigmas = _levels(settings, options).astype(np.float32)
    timesteps = sigmas * np.float32(settings.num_train_timesteps)
    return FlowMatchHeun(
        settings=settings,
        timesteps=as_floats(np.repeat(timesteps, 2)[1:]),
        steps=options.steps,
        sigmas=as_floats(np.append(sigmas, np.float32(0))),
    )


def check(settings: SchedulerConfig) -> None:
    """Refuse sizes between which there is no line.

    Raises:
        SetupError: Both sizes of the dynamic shift are the same.
    """
    if settings.base_image_seq_len >= settings.max_image_seq_len:
        raise SetupError(
            "scheduler.config",
            f"scheduler_config.json says base_image_seq_len = {settings.base_image_seq_len} and "
            f"max_image_seq_len = {settings.max_image_seq_len}; the first has to be the smaller one.",
        )


_SHIFT = config.number("shift", 1.0, above=1e-3)
ENTRY = Entry(
    name="flow_match_euler",
    class_name="FlowMatchEulerDiscreteScheduler",
    fields=(
        config.TRAIN_TIMESTEPS,
        _SHIFT,
        config.flag("use_dynamic_shifting", default=False),
        config.number("base_shift", 0.5, above=-100, below=100),
        config.number("max_shift", 1.15, above=-100, below=100),
        config.whole("base_image_seq_len", 256, low=1, high=10**9),
        config.whole("max_image_seq_len", 4096, low=1, high=10**9),
        config.flag("invert_sigmas", default=False),
        config.SHIFT_TERMINAL,
        config.TIME_SHIFT,
        *config.SIGMA_SPACINGS,
        config.flag("stochastic_sampling", default=False),
    ),
    make=make,
    check=check,
    options=("mu", "sigmas"),
    flow=True,
)
HEUN_ENTRY = Entry(
    name="flow_match_heun",
    class_name="FlowMatchHeunDiscreteScheduler",
    fields=(config.TRAIN_TIMESTEPS, _SHIFT),
    make=make_heun,
    flow=True,
)

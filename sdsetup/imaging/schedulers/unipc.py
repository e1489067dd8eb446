"""UniPC: a predictor, and a corrector that uses the next evaluation for the step that led to it.

Source: Zhao et al. 2023, arXiv:2302.04867, algorithms 5 to 8; diffusers 0.42,
``schedulers/scheduling_unipc_multistep.py``, whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers import noise as noise_schedule
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.flow_match import stretched, time_shifted
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_spacing import Levels, respaced, timesteps_of
from sdsetup.imaging.schedulers.spacing import inner_timesteps
from sdsetup.imaging.schedulers.variance_exploding import as_floats, last_sigma
from sdsetup.imaging.schedulers.variance_preserving import UnitVariancePlan, check_distinct

# Pure noise has no signal to divide by.
# Source: diffusers 0.42, scheduling_unipc_multistep.py, ``set_timesteps``.
_LEAST_SIGNAL = 1e-6


@dataclass(frozen=True, kw_only=True)
class UniPc(UnitVariancePlan):
    """One evaluation a step, and the predictions of the ones before."""

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:  # noqa: ARG002
        """Correct the step that led here, then predict the next one."""
        index, sample = state.index, state.sample
        predict = self.clean if self.settings.predict_x0 else self.epsilon
        predicted = predict(sample, output, index)
        corrected = index > state.begin and index - 1 not in self.settings.disable_corrector
        if corrected and state.anchor is not None:
            order = self._order(index - 1, state.begin)
            sample = self._step(state.anchor, state.history[-order:], index - 1, predicted)
        history = (*state.history, predicted)[-self.settings.solver_order :]
        order = self._order(index, state.begin)
        return State(
            index=index + 1,
            sample=self._step(sample, history[-order:], index, None),
            begin=state.begin,
            history=history,
            anchor=sample,
        )

    def _order(self, index: int, begin: int) -> int:
        most = self.settings.solver_order
        if self.settings.lower_order_final:
            most = min(most, len(self.timesteps) - index)
        return min(most, index - begin + 1)

    def _step(
        self, sample: Floats, predictions: tuple[Floats, ...], index: int, after: Floats | None
    ) -> Floats:
        """Go from evaluation ``index`` to the next noise level.

        Args:
            sample: At evaluation ``index``.
            predictions: Of that evaluation and the ones before, newest last; as many as the order.
            index: An evaluation.
            after: The prediction at the end of the step, for the corrector.
        """
        step = self.lambda_(index + 1) - self.lambda_(index)
        if self.settings.predict_x0:
            keep, gain, width = self.noise(index + 1) / self.noise(index), -self.signal(index + 1), -step
        else:
            keep, gain, width = self.signal(index + 1) / self.signal(index), -self.noise(index + 1), step
        growth = math.expm1(width)
        newest = predictions[-1]
        moved = np.float32(keep) * sample + np.float32(gain * growth) * newest
        places = [
            (self.lambda_(index - past) - self.lambda_(index)) / step for past in range(1, len(predictions))
        ]
        differences = [
            (past - newest) * np.float32(1 / place)
            for past, place in zip(reversed(predictions[:-1]), places, strict=True)
        ]
        if after is not None:
            places.append(1.0)
            differences.append(after - newest)
        if not differences:
            return moved
        scale = width if self.settings.solver_type == "bh1" else growth
        for weight, difference in zip(_weights(places, width, scale), differences, strict=True):
            moved = moved + np.float32(gain * scale * weight) * difference
        return moved


def _weights(places: list[float], width: float, scale: float) -> list[float]:
    """Return the weight of each difference (equations 9 to 11)."""
    # With one difference the published method takes one half, which the equations only come near to.
    if len(places) == 1:
        return [0.5]
    wanted = []
    phi, factorial = math.expm1(width) / width - 1, 1
    for power in range(1, len(places) + 1):
        wanted.append(phi * factorial / scale)
        factorial *= power + 1
        phi = phi / width - 1 / factorial
    powers = np.vander(np.array(places), increasing=True).T
    solved: list[float] = np.linalg.solve(powers, np.array(wanted)).tolist()
    return solved


def _flow_levels(settings: SchedulerConfig, options: Options) -> Levels:
    sigmas = np.linspace(1, 1 / settings.num_train_timesteps, options.steps + 1)[:-1]
    if settings.use_dynamic_shifting:
        if options.mu is None:
            raise UsageError(
                "scheduler.mu", "this model's noise levels depend on the image's size: mu is missing."
            )
        sigmas = time_shifted(settings, options.mu, sigmas)
    else:
        sigmas = settings.flow_shift * sigmas / (1 + (settings.flow_shift - 1) * sigmas)
    sigmas = stretched(settings, sigmas)
    if abs(sigmas[0] - 1) < _LEAST_SIGNAL:
        sigmas[0] -= _LEAST_SIGNAL
    return sigmas


def make(settings: SchedulerConfig, options: Options) -> UniPc:
    """Plan ``steps`` evaluations.

    Raises:
        UsageError: More steps than the configuration has different noise levels.
        UsageError: The configuration wants mu, and there is none.
    """
    table = noise_schedule.sigmas(settings)
    levels = respaced(settings, table[::-1], options.steps)
    if levels is not None:
        timesteps = timesteps_of(levels, table)
        if settings.use_karras_sigmas:
            timesteps = timesteps.round()
            if settings.use_flow_sigmas:
                levels = levels / (levels + 1)
                timesteps = levels * settings.num_train_timesteps
    elif settings.use_flow_sigmas:
        levels = _flow_levels(settings, options)
        timesteps = levels * settings.num_train_timesteps
    else:
        timesteps = inner_timesteps(settings, options.steps, settings.num_train_timesteps).astype(np.float64)
        levels = np.interp(timesteps, np.arange(len(table)), table)
    own_end = settings.use_flow_sigmas or respaced(settings, table[::-1], 1) is not None
    end = last_sigma(settings)
    if own_end and end > 0:
        end = float(levels[-1])
    sigmas = as_floats(np.append(levels, end))
    check_distinct(sigmas[:-1], "unipc", options.steps)
    return UniPc(
        settings=settings,
        timesteps=tuple(float(int(place)) for place in timesteps),
        steps=options.steps,
        sigmas=sigmas,
    )


def check(settings: SchedulerConfig) -> None:
    """Refuse what would divide by zero at the end.

    Raises:
        SetupError: A high order in a last step that is infinite or moves nothing.
    """
    spaced = settings.use_karras_sigmas or settings.use_exponential_sigmas or settings.use_beta_sigmas
    zero = settings.final_sigmas_type == "zero"
    if not settings.predict_x0 and zero:
        raise SetupError(
            "scheduler.unsupported",
            "scheduler_config.json says predict_x0 = False and final_sigmas_type = 'zero'; "
            "predicting noise needs final_sigmas_type = 'sigma_min'.",
        )
    high = not settings.lower_order_final and settings.solver_order > 1
    if high and (zero or spaced or settings.use_flow_sigmas):
        raise SetupError(
            "scheduler.unsupported",
            "scheduler_config.json says lower_order_final = False; the last step of this configuration "
            f"cannot be made with solver_order = {settings.solver_order}.",
        )
    if settings.shift_terminal is not None and not settings.use_flow_sigmas:
        raise SetupError(
            "scheduler.unsupported",
            "scheduler_config.json says shift_terminal, which needs use_flow_sigmas = true.",
        )
    if not settings.predict_x0 and settings.prediction_type == "flow_prediction":
        raise SetupError(
            "scheduler.unsupported",
            "scheduler_config.json says prediction_type = 'flow_prediction' and predict_x0 = False; "
            "predict_x0 has to be true there.",
        )


ENTRY = Entry(
    name="unipc",
    class_name="UniPCMultistepScheduler",
    fields=(
        *config.betas(0.0001, 0.02),
        config.predictions("v_prediction", "sample", "flow_prediction"),
        config.whole("solver_order", 2, low=1, high=3),
        config.choice(
            "solver_type", "bh2", "bh1", same_as=dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")
        ),
        config.flag("predict_x0", default=True),
        config.flag("lower_order_final", default=True),
        config.whole_list("disable_corrector"),
        config.unset("solver_p"),
        *config.spacing("linspace"),
        *config.SIGMA_SPACINGS,
        *config.FLOW_SIGMAS,
        config.TIME_SHIFT,
        config.SHIFT_TERMINAL,
        config.FINAL_SIGMA,
        config.ZERO_SNR,
        config.NO_THRESHOLDING,
    ),
    make=make,
    check=check,
    options=("mu",),
)

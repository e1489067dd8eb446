"""Linear multi-step method along sigma.

Source: k-diffusion, ``sample_lms``; diffusers 0.42, ``schedulers/scheduling_lms_discrete.py``, whose
numbers these are. The integrals of the Lagrange polynomials are exact here, not by quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import Polynomial

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.variance_exploding import SigmaPlan, as_floats, sigma_levels

# Source: k-diffusion and diffusers use four slopes.
_ORDER = 4


def _weights(sigmas: tuple[float, ...], index: int) -> list[float]:
    """Return the weight of each remembered slope for the step from ``index``, newest first."""
    order = min(index + 1, _ORDER)
    # Seen from the present noise level, so that the polynomials stay well conditioned.
    nodes = [sigmas[index - k] - sigmas[index] for k in range(order)]
    weights = []
    for k, node in enumerate(nodes):
        others = nodes[:k] + nodes[k + 1 :]
        basis = Polynomial.fromroots(others) if others else Polynomial([1.0])
        basis = basis / float(np.prod([node - other for other in others]))
        weights.append(float(basis.integ()(sigmas[index + 1] - sigmas[index])))
    return weights


@dataclass(frozen=True, kw_only=True)
class Lms(SigmaPlan):
    """One evaluation a step, and up to four remembered slopes."""

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:  # noqa: ARG002
        """Integrate the polynomial through the last slopes to the next noise level.

        After ``resume`` fewer slopes than weights are there: the missing ones count as zero, as in diffusers.
        """
        slope = self.derivative(state.sample, output, self.sigmas[state.index])
        history = (*state.history, slope)[-_ORDER:]
        sample = state.sample
        weights = _weights(self.sigmas, state.index)
        for weight, remembered in zip(weights, reversed(history), strict=False):
            sample = sample + np.float32(weight) * remembered
        return State(index=state.index + 1, sample=sample, begin=state.begin, history=history)


def make(settings: SchedulerConfig, options: Options) -> Lms:
    """Plan ``steps`` evaluations."""
    if settings.use_karras_sigmas:
        # This class's Karras sigmas take no ends from the configuration.
        settings = replace(settings, sigma_min=None, sigma_max=None)
    timesteps, levels = sigma_levels(settings, options.steps)
    return Lms(
        settings=settings,
        timesteps=as_floats(timesteps),
        steps=options.steps,
        sigmas=as_floats(np.append(levels, 0)),
    )


ENTRY = Entry(
    name="lms",
    class_name="LMSDiscreteScheduler",
    fields=(
        *config.betas(0.0001, 0.02),
        config.predictions("v_prediction", "sample"),
        *config.spacing("linspace"),
        *config.SIGMA_SPACINGS,
    ),
    make=make,
)

"""Linear multi-step method along sigma.

Source: k-diffusion, ``sample_lms``; diffusers 0.42, ``schedulers/scheduling_lms_discrete.py``, whose
numbers these are. The integrals of the Lagrange polynomials are exact here, not by quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import Polynomial

from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_path import SigmaPath, derivative, sigma_path

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
class Lms:
    """One evaluation a step, and up to four remembered slopes."""

    settings: SchedulerConfig
    path: SigmaPath

    @property
    def timesteps(self) -> tuple[float, ...]:
        """What the UNet is told at each evaluation."""
        return self.path.timesteps

    def start(self, noise: Floats) -> State:
        """Begin at the path's first noise level."""
        return State(index=0, sample=noise * np.float32(self.path.initial_scale))

    def model_input(self, state: State) -> Floats:
        """Return the sample at unit variance."""
        return self.path.scaled(state.sample, state.index)

    def wants_noise(self, state: State) -> bool:  # noqa: ARG002 - the protocol's signature
        """Never: the path is deterministic."""
        return False

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:  # noqa: ARG002
        """Integrate the polynomial through the last slopes to the next noise level."""
        slope = derivative(self.settings, state.sample, output, self.path.sigmas[state.index])
        history = (*state.history, slope)[-_ORDER:]
        sample = state.sample
        weights = _weights(self.path.sigmas, state.index)
        for weight, remembered in zip(weights, reversed(history), strict=True):
            sample = sample + np.float32(weight) * remembered
        return State(index=state.index + 1, sample=sample, history=history)


def make(settings: SchedulerConfig, steps: int) -> Lms:
    """Plan ``steps`` evaluations."""
    # Fields of other schedulers, which this one's reference passes over.
    plain = replace(
        settings, final_sigmas_type="zero", rescale_betas_zero_snr=False, sigma_min=None, sigma_max=None
    )
    return Lms(settings=plain, path=sigma_path(plain, steps))

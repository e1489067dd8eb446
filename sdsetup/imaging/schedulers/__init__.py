"""Schedulers in plain numpy: the numbers of diffusers' classes without torch in the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.schedulers import flow_match
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, Scheduler, State
from sdsetup.imaging.schedulers.registry import ENTRIES, class_of, name_of, read, steps_model_of

__all__ = [
    "FLOW_NAMES",
    "NAMES",
    "NAMES_ALONE",
    "Floats",
    "Scheduler",
    "State",
    "check",
    "class_of",
    "make_scheduler",
    "name_of",
    "plainest",
    "resolution_mu",
]

# Schedulers of models that learned to take noise out, as Stable Diffusion 1, 2 and XL did.
NAMES = tuple(entry.name for entry in ENTRIES if not entry.flow)
# Schedulers of models that learned flow matching, as Stable Diffusion 3 and Flux did.
FLOW_NAMES = tuple(entry.name for entry in ENTRIES if entry.flow and not entry.alone)
# Schedulers of models that no other scheduler steps.
NAMES_ALONE = tuple(entry.name for entry in ENTRIES if entry.alone)
# Steps in everybody's range, to lay out noise levels when planning.
_FEW = 4


def check(config: Mapping[str, Any], name: str | None = None) -> str:
    """Refuse, before any image is made, a configuration that cannot be used.

    Args:
        config: A diffusers ``scheduler_config.json``, of whichever class.
        name: The scheduler that is asked for; None takes the configuration's own.

    Returns:
        The scheduler's name.

    Raises:
        UsageError: There is no scheduler of that name.
        SetupError: The class is not supported, or a field that the scheduler reads is junk or not supported.
    """
    entry, settings = read(name_of(config) if name is None else name, config)
    try:
        entry.make(settings, Options(steps=_FEW, mu=0.0))
    except UsageError:
        # How many steps there can be is for make_scheduler to say.
        return entry.name
    return entry.name


def plainest(config: Mapping[str, Any]) -> str:
    """Return Euler's method, of diffusion or of flow matching, or the configuration's own scheduler.

    Each step is one evaluation of the model, whatever the checkpoint's own scheduler is; those that refuse
    both forms of Euler's method have one too.

    Args:
        config: A diffusers ``scheduler_config.json``, of whichever class.

    Raises:
        SetupError: As :func:`check` says.
    """
    for name in ("euler", "flow_match_euler"):
        try:
            return check(config, name)
        except SetupError:
            continue
    return check(config)


def make_scheduler(
    name: str,
    config: Mapping[str, Any],
    steps: int,
    *,
    eta: float = 0.0,
    mu: float | None = None,
    sigmas: Sequence[float] | None = None,
    original_inference_steps: int | None = None,
    strength: float = 1.0,
) -> Scheduler:
    """Plan a trajectory.

    Args:
        name: One of ``NAMES``, ``FLOW_NAMES`` or ``NAMES_ALONE``.
        config: A diffusers ``scheduler_config.json``, of whichever class; only the fields that the
            scheduler reads are looked at, and absent ones take the defaults of its own class.
        steps: How many steps a person asks for, 1 to the number of training timesteps.
        eta: Share of the training noise that DDIM and TCD add back, 0 to 1.
        mu: Log of the shift where the configuration has ``use_dynamic_shifting`` (see ``resolution_mu``);
            without meaning elsewhere.
        sigmas: Unshifted falling noise levels for ``flow_match_euler``, one a step; pipelines of the Flux
            family visit ``linspace(1, 1 / steps, steps)``. None lets the scheduler choose, as those of
            Stable Diffusion 3 do.
        original_inference_steps: Steps of the distillation, where LCM or TCD is to use another number than
            the configuration's.
        strength: For LCM and TCD, share of the distillation's steps to choose from. Image to image with an
            LCM model lays out its steps so and begins with the first of them; all others use
            ``Scheduler.first_index``.

    Raises:
        UsageError: An unknown name, or an argument out of range.
        SetupError: The configuration holds something that is not supported.
    """
    entry, settings = read(name, config)
    # "leading" shifts every timestep by the offset, and the last training timestep is the end of the table.
    shift = settings.steps_offset if settings.timestep_spacing == "leading" else 0
    most = max(settings.num_train_timesteps - shift, 1)
    if not 1 <= steps <= most:
        raise UsageError(
            "scheduler.steps",
            f"--steps {steps} is out of range: 1 to {most}.",
            "leave it out for as many as the model is made for.",
        )
    _check_eta(entry, eta, config)
    options = Options(
        steps=steps,
        eta=eta,
        mu=mu,
        sigmas=None if sigmas is None else tuple(sigmas),
        original_inference_steps=original_inference_steps,
        strength=strength,
    )
    for option in ("sigmas", "original_inference_steps", "strength"):
        if option not in entry.options and getattr(options, option) != getattr(Options(steps=1), option):
            raise UsageError("scheduler.option", f"the {name} scheduler has no {option}.")
    return entry.make(settings, options)


def _check_eta(entry: Entry, eta: float, config: Mapping[str, Any]) -> None:
    """Refuse a share of noise that is none, or that the scheduler does not add."""
    if not 0 <= eta <= 1:
        raise UsageError(
            "scheduler.eta",
            f"--eta {eta:g} is out of range: it is the share of noise that each step adds back, 0 to 1.",
            "0 adds none, as without --eta; 1 adds what training had.",
        )
    if eta == 0 or "eta" in entry.options:
        return
    able = [each.name for each in ENTRIES if "eta" in each.options and steps_model_of(each, config)]
    raise UsageError(
        "scheduler.eta",
        f"--eta {eta:g} cannot be used with {entry.name}: ddim and tcd alone add noise as they are told.",
        f"leave --eta out, or add {' or '.join(f'--scheduler {name}' for name in able)}."
        if able
        else "leave --eta out.",
    )


def resolution_mu(config: Mapping[str, Any], image_tokens: int) -> float | None:
    """Return ``mu`` for an image's size; None where the configuration's shift is the same for all sizes.

    Args:
        config: A diffusers ``scheduler_config.json`` of flow matching, of whichever class.
        image_tokens: Tokens that the model makes of the latents: height times width over its patch size.

    Raises:
        SetupError: A field is junk.
    """
    settings = flow_match.ENTRY.read(config)
    return flow_match.resolution_mu(settings, image_tokens) if settings.use_dynamic_shifting else None

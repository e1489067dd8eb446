"""Schedulers in plain numpy: the numbers of diffusers' classes without torch in the process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sdsetup.errors import UsageError
from sdsetup.imaging.schedulers import ddim, dpmpp_2m, euler, euler_ancestral, lms, pndm
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats, Scheduler, State

__all__ = ["NAMES", "Floats", "Scheduler", "State", "make_scheduler", "name_of"]

NAMES = ("ddim", "pndm", "euler", "euler_ancestral", "dpmpp_2m", "lms")

_CLASSES = {
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "pndm",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "LMSDiscreteScheduler": "lms",
}

# Where a class of diffusers fills an absent field differently from the others.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ddim": {"timestep_spacing": "leading"},
    "pndm": {"timestep_spacing": "leading", "set_alpha_to_one": False},
}


def name_of(config: Mapping[str, Any]) -> str:
    """Return the scheduler that a ``scheduler_config.json`` was written for; PNDM where it is another."""
    return _CLASSES.get(str(config.get("_class_name", "")), "pndm")


def make_scheduler(name: str, config: Mapping[str, Any], steps: int, *, eta: float = 0.0) -> Scheduler:
    """Plan a trajectory.

    Args:
        name: One of ``NAMES``.
        config: A diffusers ``scheduler_config.json``, of whichever class.
        steps: How many steps a person asks for, 1 to the number of training timesteps.
        eta: Share of the training noise that DDIM adds back, 0 to 1.

    Raises:
        UsageError: An unknown name, or steps or eta out of range.
        SetupError: The configuration holds something that is not supported.
    """
    if name not in NAMES:
        raise UsageError(
            "scheduler.unknown", f"there is no scheduler {name!r}.", f"choose one of: {', '.join(NAMES)}."
        )
    settings = SchedulerConfig.read(config, **_DEFAULTS.get(name, {}))
    # "leading" shifts every timestep by the offset, and the last training timestep is the end of the table.
    shift = settings.steps_offset if settings.timestep_spacing == "leading" else 0
    if not 1 <= steps <= settings.num_train_timesteps - shift:
        raise UsageError(
            "scheduler.steps",
            f"--steps {steps} is out of range: 1 to {settings.num_train_timesteps - shift}.",
            "20 to 50 is usual.",
        )
    if not 0 <= eta <= 1 or (eta > 0 and name != "ddim"):
        raise UsageError(
            "scheduler.eta",
            f"--eta {eta:g} makes no sense with {name}: it is a number from 0 to 1, for ddim alone.",
            "leave --eta out, or add --scheduler ddim.",
        )
    match name:
        case "ddim":
            return ddim.make(settings, steps, eta)
        case "pndm":
            # Zero terminal signal would divide by zero here, and diffusers' class does not know the field.
            return pndm.make(replace(settings, rescale_betas_zero_snr=False), steps)
        case "euler":
            return euler.make(settings, steps)
        case "euler_ancestral":
            return euler_ancestral.make(settings, steps)
        case "lms":
            return lms.make(settings, steps)
        case _:
            return dpmpp_2m.make(settings, steps)

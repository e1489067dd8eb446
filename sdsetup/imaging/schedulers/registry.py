"""All schedulers, by name and by diffusers' class; and what is refused, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.schedulers import (
    ddim,
    ddpm,
    deis,
    dpm_multistep,
    dpm_singlestep,
    dpmpp_sde,
    euler,
    euler_ancestral,
    flow_match,
    heun,
    kdpm2,
    lcm,
    lms,
    pndm,
    scm,
    tcd,
    unipc,
)
from sdsetup.imaging.schedulers.config import CORRECT_IT, SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry

ENTRIES: tuple[Entry, ...] = (
    ddim.ENTRY,
    pndm.ENTRY,
    euler.ENTRY,
    euler_ancestral.ENTRY,
    dpm_multistep.ENTRY,
    lms.ENTRY,
    dpm_multistep.SDE_ENTRY,
    dpm_singlestep.ENTRY,
    dpmpp_sde.ENTRY,
    heun.ENTRY,
    kdpm2.ENTRY,
    kdpm2.ANCESTRAL_ENTRY,
    deis.ENTRY,
    unipc.ENTRY,
    ddpm.ENTRY,
    lcm.ENTRY,
    tcd.ENTRY,
    flow_match.ENTRY,
    flow_match.HEUN_ENTRY,
    scm.ENTRY,
)
_BY_NAME = {entry.name: entry for entry in ENTRIES}

# Classes of diffusers that are not here, and which of ours comes nearest; None where a model made for the
# class cannot be stepped by any of them.
_NEAREST: dict[str, str | None] = {
    "SASolverScheduler": "dpmpp_2m_sde",
    "DDIMParallelScheduler": "ddim",
    "DDIMInverseScheduler": "ddim",
    "CogVideoXDDIMScheduler": "ddim",
    "DDPMParallelScheduler": "ddpm",
    "RePaintScheduler": "ddpm",
    "UnCLIPScheduler": "ddpm",
    "CogVideoXDPMScheduler": "dpmpp_2m",
    "DPMSolverMultistepInverseScheduler": "dpmpp_2m",
    "IPNDMScheduler": None,
    "EDMEulerScheduler": None,
    "EDMDPMSolverMultistepScheduler": None,
    "CosineDPMSolverMultistepScheduler": None,
    "CMStochasticIterativeScheduler": None,
    "ConsistencyDecoderScheduler": None,
    "DDPMWuerstchenScheduler": None,
    "KarrasVeScheduler": None,
    "ScoreSdeVeScheduler": None,
    "ScoreSdeVpScheduler": None,
    "VQDiffusionScheduler": None,
    "AmusedScheduler": None,
    "DiscreteDDIMScheduler": None,
    "FlowMapEulerDiscreteScheduler": None,
    "PiFlowScheduler": None,
    "FlowMatchLCMScheduler": "flow_match_euler",
    "LTXEulerAncestralRFScheduler": "flow_match_euler",
}
# How much of two names must be equal, without the ending that all share, for one to be a likely other form.
_LIKE = 0.8


def name_of(config: Mapping[str, Any]) -> str:
    """Return the scheduler that a ``scheduler_config.json`` was written for.

    Raises:
        SetupError: The class is missing (``scheduler.config``), or none of ours (``scheduler.unsupported``).
    """
    class_name = _class_of(config)
    if class_name is None:
        likely = "flow_match_euler" if "shift" in config else "ddim"
        raise SetupError(
            "scheduler.config",
            "scheduler_config.json does not say which scheduler it is for: _class_name is missing.",
            f"add --scheduler NAME, for example --scheduler {likely}.",
        )
    for entry in ENTRIES:
        fixed = (entry.fixed or {}).items()
        if entry.class_name == class_name and entry.fixed and all(config.get(k) == v for k, v in fixed):
            return entry.name
    for entry in ENTRIES:
        if entry.class_name == class_name and not entry.fixed:
            return entry.name
    raise SetupError(
        "scheduler.unsupported",
        f"the checkpoint's scheduler is a {class_name}, which is not supported.",
        _instead_of(class_name),
    )


def class_of(name: str) -> str:
    """Return the diffusers class of a scheduler.

    Raises:
        UsageError: There is no scheduler of that name.
    """
    return _entry_of(name).class_name


def _entry_of(name: str) -> Entry:
    """Return a scheduler; an unknown name is refused with the nearest: others write "DPM++ 2M Karras"."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    plain = name.lower().removesuffix(" karras").replace("++", "pp").replace(" ", "_")
    plain = f"{plain}ncestral" if plain.endswith("_a") else plain
    near = difflib.get_close_matches(plain, _BY_NAME, n=1, cutoff=_LIKE)
    meant = f"did you mean {near[0]}? " if near else ""
    known = ", ".join(_BY_NAME)
    raise UsageError(
        "scheduler.unknown", f"there is no scheduler {name!r}.", f"{meant}choose one of: {known}."
    )


def read(name: str, config: Mapping[str, Any]) -> tuple[Entry, SchedulerConfig]:
    """Find a scheduler and read its fields of a configuration.

    Raises:
        UsageError: There is no scheduler of that name.
        SetupError: A field that it reads is junk or not supported, or it cannot step such a model at all.
    """
    entry = _entry_of(name)
    _check_kind(entry, config)
    if entry.flow and config.get("shift") is None and config.get("flow_shift") is not None:
        config = {**config, "shift": config["flow_shift"]}  # the same under another name
    try:
        return entry, entry.read(config)
    except SetupError as refused:
        if refused.hint:
            raise
        raise type(refused)(refused.code, refused.message, _alternative(config)) from None


def steps_model_of(entry: Entry, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler can step the model that a configuration belongs to."""
    try:
        _check_kind(entry, config)
    except SetupError:
        return False
    return True


def _check_kind(entry: Entry, config: Mapping[str, Any]) -> None:
    """Refuse to step a model that was trained in another way."""
    class_name = _class_of(config)
    if class_name is None:
        return
    known = next((other for other in ENTRIES if other.class_name == class_name), None)
    if known is None and class_name in _NEAREST and _NEAREST[class_name] is None:
        raise SetupError(
            "scheduler.unsupported",
            f"the checkpoint's scheduler is a {class_name}: no scheduler here can step such a model.",
        )
    if known is None:
        return
    if known is not entry and (known.alone or entry.alone):
        raise SetupError(
            "scheduler.unsupported",
            f"the checkpoint's scheduler is a {class_name}; {entry.name} cannot step such a model.",
            f"leave --scheduler out, or use --scheduler {known.name}.",
        )
    # Solvers of diffusion step models of flow matching too, where their configuration says so.
    learned_flow = known.flow or config.get("use_flow_sigmas") is True
    if known.flow != entry.flow and not (entry.flow and learned_flow):
        kinds = {True: "flow matching", False: "diffusion"}
        raise SetupError(
            "scheduler.unsupported",
            f"the checkpoint's scheduler is a {class_name}, for a model of {kinds[known.flow]}; "
            f"{entry.name} steps models of {kinds[entry.flow]}.",
            f"leave --scheduler out, or use --scheduler {known.name}.",
        )


def _class_of(config: object) -> str | None:
    if not isinstance(config, Mapping):
        raise SetupError("scheduler.config", "scheduler_config.json does not hold a JSON object.", CORRECT_IT)
    value = config.get("_class_name")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise SetupError(
            "scheduler.config",
            f"scheduler_config.json says _class_name = {repr(value)[:60]}; it has to be a name.",
            CORRECT_IT,
        )
    # Checkpoints made with JAX name the same scheduler with a prefix.
    return value.removeprefix("Flax")


def _instead_of(class_name: str) -> str:
    """Return a hint for a class that is not here: the nearest where one is near, else all of its kind."""
    if class_name in _NEAREST and _NEAREST[class_name] is None:
        return "there is no scheduler here for such a model."
    nearest = _NEAREST.get(class_name) or _much_alike(class_name)
    if nearest is not None:
        return f"add --scheduler {nearest}, the nearest to it."
    flow = _of_flow(class_name)
    names = ", ".join(entry.name for entry in ENTRIES if entry.flow == flow and not entry.alone)
    return f"add --scheduler with one that fits the model: {names}."


def _much_alike(class_name: str) -> str | None:
    """Return the scheduler whose class has nearly the same name, or a name within it; None for others."""
    flow = _of_flow(class_name)
    kind = [entry for entry in reversed(ENTRIES) if entry.flow == flow and not entry.alone]
    bare = {entry.class_name.removesuffix("Scheduler"): entry.name for entry in kind}
    wanted = class_name.removesuffix("Scheduler")
    within = max((name for name in bare if name in wanted), key=len, default="")
    close = [within] if within else difflib.get_close_matches(wanted, bare, n=1, cutoff=_LIKE)
    return bare[close[0]] if close else None


def _of_flow(class_name: str) -> bool:
    return "flow" in class_name.lower()


def _alternative(config: Mapping[str, Any]) -> str:
    """Return a hint that names a scheduler which takes the configuration as it is, where there is one."""
    for entry in ENTRIES:
        try:
            _check_kind(entry, config)
            entry.read(config)
        except SetupError:
            continue
        return f"choose another one, for example --scheduler {entry.name}."
    return CORRECT_IT

"""See, before anything is converted, that images can be made with a checkpoint's scheduler."""

from __future__ import annotations

from conversions.checkpoint.folder import Checkpoint
from sdsetup.errors import SetupError
from sdsetup.imaging import schedulers


def check_scheduler(label: str, checkpoint: Checkpoint, wanted: str) -> None:
    """Refuse a scheduler that is missing, unknown, or of another kind of model.

    Args:
        label: What the person calls it.
        checkpoint: Its small files.
        wanted: Class that is to take the place of the configuration's; empty leaves it.

    Raises:
        SetupError: ``scheduler.missing``, or as ``schedulers.check`` says.
    """
    if not checkpoint.scheduler:
        raise SetupError(
            "scheduler.missing",
            f"{label} has no scheduler/scheduler_config.json, which says how images are made.",
            "download the model again, with its folder scheduler.",
        )
    recipe = checkpoint.recipe
    config = recipe.scheduler_config
    name = schedulers.check({**config, **({"_class_name": wanted} if wanted else {})})
    if wanted:
        schedulers.check(config, name)  # the class that it replaces tells what the model learned
    own = recipe.own_scheduler
    if (name in schedulers.NAMES_ALONE or own) and schedulers.class_of(name) != own:
        if wanted:
            hint = "leave --scheduler out."
        elif own:
            hint = f"download the published model's folder scheduler, which has the class {own}."
        else:
            hint = "download the folder scheduler of the model that this one was made from."
        raise SetupError(
            "scheduler.unsupported", f"{name} cannot step {label}, which is another kind of model.", hint
        )
    learned_flow = recipe.noise_levels(1, recipe.native) is not None
    if name in schedulers.FLOW_NAMES and not learned_flow:
        raise SetupError(
            "scheduler.unsupported",
            f"{name} is for models that learned flow matching, and {label} learned to take noise out.",
            "add --scheduler NAME, for example --scheduler euler.",
        )
    if name in schedulers.NAMES and learned_flow and config.get("use_flow_sigmas") is not True:
        raise SetupError(
            "scheduler.unsupported",
            f"{name} is for models that learned to take noise out, and {label} learned flow matching.",
            "add --scheduler flow_match_euler.",
        )

"""What the registry holds of a scheduler, and what a caller asks of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sdsetup.imaging.schedulers.config import Field, SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Scheduler


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request says, beside the checkpoint's configuration.

    Attributes:
        steps: Steps of the scheduler.
        eta: Share of the training noise that DDIM and TCD add back, 0 to 1.
        mu: Log of the shift, for configurations with ``use_dynamic_shifting``.
        sigmas: Unshifted noise levels to visit, falling, one a step; None lets the scheduler choose.
        original_inference_steps: Steps of the distillation, where LCM or TCD is to use another number than
            the configuration's.
        strength: Share of the distillation's steps that LCM and TCD choose theirs from.
    """

    steps: int
    eta: float = 0.0
    mu: float | None = None
    sigmas: tuple[float, ...] | None = None
    original_inference_steps: int | None = None
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One scheduler.

    Attributes:
        name: What ``--scheduler`` takes.
        class_name: The class of diffusers whose numbers it has.
        fields: What it reads of a configuration, with that class's defaults.
        make: Plans a trajectory.
        check: Refuses fields that do not go together.
        fixed: Fields that the name itself decides.
        options: Attributes of ``Options`` that it looks at, beside ``steps``.
        flow: Steps models trained with flow matching, which know no betas.
        alone: Steps models that no other scheduler steps, and no others.
    """

    name: str
    class_name: str
    fields: tuple[Field, ...]
    make: Callable[[SchedulerConfig, Options], Scheduler]
    check: Callable[[SchedulerConfig], None] | None = None
    fixed: Mapping[str, str] | None = None
    options: tuple[str, ...] = ()
    flow: bool = False
    alone: bool = False

    def read(self, config: object) -> SchedulerConfig:
        """Read a configuration.

        Raises:
            SetupError: A field that this scheduler reads is junk or not supported.
        """
        if self.fixed and isinstance(config, Mapping):
            config = {**config, **self.fixed}
        settings = SchedulerConfig.read(config, self.fields, self.name)
        if self.check is not None:
            self.check(settings)
        return settings

"""The fields of a diffusers ``scheduler_config.json`` that the schedulers here understand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sdsetup.errors import SetupError

Value = TypeVar("Value")

_CHOICES: dict[str, tuple[object, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "solver_order": (1, 2),
    "solver_type": ("midpoint", "heun"),
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "variance_type": (None, "fixed_small", "fixed_large"),
    "thresholding": (False,),
    "use_beta_sigmas": (False, None),
    "use_flow_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
}


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """A scheduler configuration with every default filled in.

    The defaults are those of diffusers' constructors; where its classes disagree, the class of the
    scheduler that is asked for passes its own to ``read``.

    Source: diffusers 0.42, ``schedulers/scheduling_*.py``, the ``__init__`` of each class.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    skip_prk_steps: bool = False
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str = "zero"
    algorithm_type: str = "dpmsolver++"
    solver_order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    lambda_min_clipped: float = float("-inf")

    @classmethod
    def read(cls, config: Mapping[str, Any], **defaults: Any) -> SchedulerConfig:
        """Read a configuration, whichever class wrote it.

        Args:
            config: The parsed JSON; fields that mean nothing here are passed over.
            **defaults: Values for absent fields, where the wanted scheduler's differ from the above.

        Raises:
            SetupError: A field has a value that would change the image and that is not supported.
        """
        for name, choices in _CHOICES.items():
            if name in config and config[name] not in choices:
                wanted = ", ".join(str(choice) for choice in choices)
                raise SetupError(
                    "scheduler.unsupported",
                    f"scheduler_config.json says {name} = {config[name]!r}; supported here: {wanted}.",
                    "edit scheduler/scheduler_config.json in the package.",
                )
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in config.items() if name in known and value is not None}
        if "trained_betas" in given:
            given["trained_betas"] = tuple(float(beta) for beta in given["trained_betas"])
        return cls(**{**defaults, **given})

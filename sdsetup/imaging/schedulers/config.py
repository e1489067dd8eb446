"""Typed reading of a diffusers ``scheduler_config.json``: only the fields that one scheduler reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdsetup.errors import SetupError

# The hint where no other scheduler would take the configuration either.
CORRECT_IT = "correct scheduler/scheduler_config.json of the checkpoint."
_MOST_TIMESTEPS = 100_000
_LONGEST_VALUE = 60


class _WrongTypeError(Exception):
    """The value is of another type or out of range."""


class _UnsupportedError(Exception):
    """The value has the right type; nothing here does what it asks for."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field that a scheduler reads.

    Attributes:
        name: Its name in the JSON, and in ``SchedulerConfig``.
        default: The value of the scheduler's own class where the field is absent or null.
        expected: What a value has to be, for a message.
        convert: Turns a JSON value into what ``SchedulerConfig`` holds.
    """

    name: str
    default: Any
    expected: str
    convert: Callable[[object], Any]

    def read(self, config: Mapping[str, Any], scheduler: str) -> Any:
        """Return this field's value.

        Raises:
            SetupError: The value is junk (``scheduler.config``) or not supported (``scheduler.unsupported``).
        """
        value = config.get(self.name)
        if value is None:
            return self.default
        shown = repr(value)
        if len(shown) > _LONGEST_VALUE:
            shown = shown[:_LONGEST_VALUE] + "..."
        says = f"scheduler_config.json says {self.name} = {shown}"
        try:
            return self.convert(value)
        except _WrongTypeError:
            raise SetupError("scheduler.config", f"{says}; it has to be {self.expected}.") from None
        except _UnsupportedError:
            raise SetupError(
                "scheduler.unsupported",
                f"{says}; the {scheduler} scheduler here supports {self.expected}.",
            ) from None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _WrongTypeError
    try:
        number = float(value)
    except OverflowError:
        raise _WrongTypeError from None
    if math.isnan(number):
        raise _WrongTypeError
    return number


def number(name: str, default: float | None, *, above: float, below: float = 1e6) -> Field:
    """Declare a number strictly between two bounds."""

    def convert(value: object) -> float:
        read = _number(value)
        if not above < read < below:
            raise _WrongTypeError
        return read

    return Field(
        name=name,
        default=default,
        expected=f"a number above {above:g} and below {below:g}",
        convert=convert,
    )


def whole(name: str, default: int, *, low: int, high: int) -> Field:
    """Declare a whole number from ``low`` to ``high``."""

    def convert(value: object) -> int:
        read = _number(value)
        if not low <= read <= high or read != int(read):
            raise _WrongTypeError
        return int(read)

    return Field(name=name, default=default, expected=f"a whole number from {low} to {high}", convert=convert)


def flag(name: str, *, default: bool) -> Field:
    """Declare true or false."""

    def convert(value: object) -> bool:
        if not isinstance(value, bool):
            raise _WrongTypeError
        return value

    return Field(name=name, default=default, expected="true or false", convert=convert)


def choice(name: str, default: str, *others: str, same_as: Mapping[str, str] | None = None) -> Field:
    """Declare one of several words.

    Args:
        name: The field.
        default: The class's default, accepted first.
        *others: What else is accepted.
        same_as: Words that the class reads as one of those.
    """
    accepted = (default, *others)

    def convert(value: object) -> str:
        if not isinstance(value, str):
            raise _UnsupportedError
        read = (same_as or {}).get(value, value)
        if read not in accepted:
            raise _UnsupportedError
        return read

    return Field(name=name, default=default, expected=", ".join(accepted), convert=convert)


def absent(name: str, *values: object, instead: str) -> Field:
    """Declare a field whose ``values`` would change the image and are not supported; others mean nothing."""

    def convert(value: object) -> None:
        if any(type(value) is type(wrong) and value == wrong for wrong in values):
            raise _UnsupportedError

    return Field(name=name, default=None, expected=instead, convert=convert)


def _trained_betas() -> Field:
    def convert(value: object) -> tuple[float, ...]:
        if not isinstance(value, list | tuple):
            raise _WrongTypeError
        betas = tuple(_number(beta) for beta in value)
        if not betas or not all(0 < beta < 1 for beta in betas):
            raise _WrongTypeError
        return betas

    expected = "a list of numbers above 0 and below 1"
    return Field(name="trained_betas", default=None, expected=expected, convert=convert)


def whole_list(name: str) -> Field:
    """Declare a list of whole numbers, empty by default."""

    def convert(value: object) -> tuple[int, ...]:
        if not isinstance(value, list | tuple):
            raise _WrongTypeError
        numbers = tuple(_number(item) for item in value)
        if any(item != item // 1 for item in numbers):
            raise _WrongTypeError
        return tuple(int(item) for item in numbers)

    return Field(name=name, default=(), expected="a list of whole numbers", convert=convert)


def unset(name: str) -> Field:
    """Declare a field that is only supported as null."""

    def convert(value: object) -> None:  # noqa: ARG001
        raise _UnsupportedError

    return Field(name=name, default=None, expected="null", convert=convert)


TRAIN_TIMESTEPS = whole("num_train_timesteps", 1000, low=2, high=_MOST_TIMESTEPS)


def betas(start: float, end: float, schedule: str = "linear", *more: str) -> tuple[Field, ...]:
    """Declare the noise schedule of training, with a class's own defaults and what else it knows."""
    others = [known for known in ("linear", "scaled_linear", "squaredcos_cap_v2") if known != schedule]
    return (
        TRAIN_TIMESTEPS,
        number("beta_start", start, above=0, below=1),
        number("beta_end", end, above=0, below=1),
        choice("beta_schedule", schedule, *others, *more),
        _trained_betas(),
    )


def predictions(*others: str) -> Field:
    """Declare what the model predicts: epsilon by default."""
    return choice("prediction_type", "epsilon", *others)


def spacing(default: str) -> tuple[Field, ...]:
    """Declare how the visited timesteps are spaced."""
    others = [known for known in ("leading", "linspace", "trailing") if known != default]
    return (
        choice("timestep_spacing", default, *others),
        whole("steps_offset", 0, low=0, high=_MOST_TIMESTEPS),
    )


# Sigmas spaced otherwise. The ends are no fields of most classes, which read them all the same.
# Source: diffusers 0.42, ``_convert_to_karras`` in schedulers/scheduling_*.py.
SIGMA_SPACINGS = (
    flag("use_karras_sigmas", default=False),
    flag("use_exponential_sigmas", default=False),
    flag("use_beta_sigmas", default=False),
    number("sigma_min", None, above=0),
    number("sigma_max", None, above=0),
)
ZERO_SNR = flag("rescale_betas_zero_snr", default=False)
FINAL_SIGMA = choice("final_sigmas_type", "zero", "sigma_min")
NO_THRESHOLDING = absent("thresholding", True, instead="false")
FLOW_SIGMAS = (
    flag("use_flow_sigmas", default=False),
    number("flow_shift", 1.0, above=1e-3),
    flag("use_dynamic_shifting", default=False),
)
TIME_SHIFT = choice("time_shift_type", "exponential", "linear")
SHIFT_TERMINAL = number("shift_terminal", None, above=-1e-9, below=1)


def clipping(*, default: bool) -> tuple[Field, ...]:
    """Declare how the predicted clean sample is clipped."""
    return flag("clip_sample", default=default), number("clip_sample_range", 1.0, above=0)


def lambda_min_clipped() -> Field:
    """Declare where log signal over noise is cut off, minus infinity (nowhere) by default."""
    expected = "a number below 1000 or -Infinity"

    def convert(value: object) -> float:
        read = _number(value)
        if not read < 1000:
            raise _WrongTypeError
        return read

    return Field(name="lambda_min_clipped", default=-math.inf, expected=expected, convert=convert)


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """The fields that a scheduler reads; the others keep values that change nothing.

    Attributes are named as in the JSON; diffusers documents each.

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
    timestep_type: str = "discrete"
    interpolation_type: str = "linear"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    skip_prk_steps: bool = False
    variance_type: str | None = None
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_lu_lambdas: bool = False
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0
    use_dynamic_shifting: bool = False
    time_shift_type: str = "exponential"
    shift: float = 1.0
    shift_terminal: float | None = None
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    invert_sigmas: bool = False
    stochastic_sampling: bool = False
    sigma_data: float = 0.5
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str = "zero"
    algorithm_type: str = "dpmsolver++"
    solver_order: int = 2
    solver_type: str = "midpoint"
    predict_x0: bool = True
    disable_corrector: tuple[int, ...] = ()
    solver_p: None = None
    thresholding: None = None
    lower_order_final: bool = True
    euler_at_final: bool = False
    lambda_min_clipped: float = -math.inf

    @classmethod
    def read(cls, config: object, fields: tuple[Field, ...], scheduler: str) -> SchedulerConfig:
        """Read the fields of one scheduler, whichever class wrote the configuration.

        Args:
            config: The parsed JSON.
            fields: What the scheduler reads; everything else is passed over.
            scheduler: Its name, for messages.

        Raises:
            SetupError: A field is junk (``scheduler.config``) or asks for what is not supported
                (``scheduler.unsupported``).
        """
        if not isinstance(config, Mapping):
            raise SetupError("scheduler.config", "scheduler_config.json does not hold a JSON object.")
        read = cls(**{field.name: field.read(config, scheduler) for field in fields})
        if read.trained_betas is not None and len(read.trained_betas) != read.num_train_timesteps:
            raise SetupError(
                "scheduler.config",
                f"scheduler_config.json holds {len(read.trained_betas)} trained_betas for "
                f"{read.num_train_timesteps} training timesteps.",
            )
        spacings = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
        chosen = [name for name in spacings if getattr(read, name)]
        if len(chosen) > 1:
            raise SetupError(
                "scheduler.config",
                f"scheduler_config.json asks for {' and '.join(chosen)}: only one of them can be.",
            )
        if read.sigma_min is not None and read.sigma_max is not None and read.sigma_min >= read.sigma_max:
            raise SetupError(
                "scheduler.config",
                f"scheduler_config.json says sigma_min = {read.sigma_min:g} and sigma_max = "
                f"{read.sigma_max:g}; the first has to be the smaller one.",
            )
        return read

"""What schedulers read of a configuration, what is assumed of what is absent, and how junk is refused."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest

from sdsetup.errors import SetupError
from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import Field, SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import State
from sdsetup.imaging.schedulers.registry import ENTRIES


def make(settings: SchedulerConfig, options: Options) -> Any:
    raise AssertionError((settings, options))


def entry(*fields: Field, **further: Any) -> Entry:
    return Entry(name="mine", class_name="MineScheduler", fields=fields, make=make, **further)


def test_what_is_not_asked_for_changes_nothing() -> None:
    assert Options(steps=3) == Options(
        steps=3, eta=0.0, mu=None, sigmas=None, original_inference_steps=None, strength=1.0
    )
    plain = entry()
    assert (plain.check, plain.fixed, plain.options, plain.flow, plain.alone) == (
        None,
        None,
        (),
        False,
        False,
    )
    state = State(index=3, sample=None)  # type: ignore[arg-type]
    assert (state.begin, state.history, state.anchor) == (0, (), None)


def test_an_entry_fixes_and_checks_fields() -> None:
    def refuse(settings: SchedulerConfig) -> None:
        raise SetupError("scheduler.config", f"order {settings.solver_order}", "")

    order = config.whole("solver_order", 2, low=1, high=3)
    assert entry(order).read({"solver_order": 3}).solver_order == 3
    assert entry(order, fixed={"solver_order": 1}).read({"solver_order": 3}).solver_order == 1
    assert entry().read({"solver_order": 3}).solver_order == 2  # it is no field of this scheduler
    with pytest.raises(SetupError, match="order 3"):
        entry(order, check=refuse).read({"solver_order": 3})
    for wrong in (3, None, [("solver_order", 3)]):
        with pytest.raises(SetupError, match="does not hold a JSON object"):
            entry(order, fixed={"solver_order": "1"}).read(wrong)


def refused(field: Field, value: object) -> tuple[str, str]:
    with pytest.raises(SetupError) as caught:
        entry(field).read({field.name: value})
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("value", [1, 2.0, 3])
def test_whole_numbers_are_taken_up_to_their_bounds(value: float) -> None:
    read = entry(config.whole("solver_order", 2, low=1, high=3)).read({"solver_order": value}).solver_order
    assert (read, type(read)) == (value, int)


@pytest.mark.parametrize("value", [0, 4, 2.5, "2", True, math.nan, 10**400])
def test_other_whole_numbers_are_junk(value: object) -> None:
    code, message = refused(config.whole("solver_order", 2, low=1, high=3), value)
    assert code == "scheduler.config"
    assert message.startswith("scheduler_config.json says solver_order = ")
    assert message.endswith("; it has to be a whole number from 1 to 3.")


@pytest.mark.parametrize("value", [0, 1e6, -math.inf, "1", False])
def test_numbers_lie_between_their_bounds(value: object) -> None:
    field = config.number("sigma_data", 0.5, above=0)
    code, message = refused(field, value)
    assert code == "scheduler.config"
    assert message.endswith("; it has to be a number above 0 and below 1e+06.")
    assert entry(field).read({"sigma_data": 1e-9}).sigma_data == 1e-9
    assert entry(field).read({"sigma_data": None}).sigma_data == entry(field).read({}).sigma_data == 0.5


def test_long_values_are_cut() -> None:
    field = config.flag("clip_sample", default=True)
    assert refused(field, 0) == (
        "scheduler.config",
        "scheduler_config.json says clip_sample = 0; it has to be true or false.",
    )
    assert f"= '{'x' * 58}'; it" in refused(field, "x" * 58)[1]
    assert f"= '{'x' * 59}...; it" in refused(field, "x" * 59)[1]


def test_words_are_chosen_from_a_list() -> None:
    field = config.choice("solver_type", "midpoint", "heun", same_as={"bh1": "heun"})
    assert entry(field).read({}).solver_type == "midpoint"
    assert entry(field).read({"solver_type": "heun"}).solver_type == "heun"
    assert entry(field).read({"solver_type": "bh1"}).solver_type == "heun"
    for value in ("other", 3, ["heun"]):
        code, message = refused(field, value)
        assert code == "scheduler.unsupported"
        assert message.endswith("; the mine scheduler here supports midpoint, heun.")


def test_what_would_change_the_image_must_be_absent() -> None:
    field = config.absent("thresholding", True, 1.5, instead="false")
    for value in (False, None, 1, "true"):
        assert entry(field).read({"thresholding": value}).thresholding is None
    for value in (True, 1.5):
        code, message = refused(field, value)
        assert code == "scheduler.unsupported"
        assert message.endswith("; the mine scheduler here supports false.")
    code, _ = refused(config.NO_THRESHOLDING, True)
    assert code == "scheduler.unsupported"
    assert entry(config.NO_THRESHOLDING).read({"thresholding": False}).thresholding is None


BETAS = config._trained_betas()
STEPS = config.whole("num_train_timesteps", 1000, low=1, high=100_000)


def test_trained_betas_are_one_for_each_timestep() -> None:
    read = entry(BETAS, STEPS).read({"trained_betas": [0.1, 0.2], "num_train_timesteps": 2})
    assert read.trained_betas == (0.1, 0.2)
    with pytest.raises(SetupError, match="holds 2 trained_betas for 3 training timesteps") as caught:
        entry(BETAS, STEPS).read({"trained_betas": [0.1, 0.2], "num_train_timesteps": 3})
    assert caught.value.code == "scheduler.config"
    for wrong in ([], [0], [1], [0.5, "0.5"], 0.5, "x"):
        assert refused(BETAS, wrong)[0] == "scheduler.config"


def test_one_spacing_of_sigmas_at_most() -> None:
    names = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    fields = [config.flag(name, default=False) for name in names]
    for name in names:
        assert getattr(entry(*fields).read({name: True}), name)
    with pytest.raises(SetupError, match=r"use_karras_sigmas and use_beta_sigmas: only one") as caught:
        entry(*fields).read({names[0]: True, names[2]: True})
    assert caught.value.code == "scheduler.config"


@pytest.mark.parametrize(("low", "high", "fits"), [(1.0, 2.0, True), (2.0, 2.0, False), (3.0, 2.0, False)])
def test_the_least_sigma_is_smaller_than_the_most(low: float, high: float, fits: bool) -> None:
    fields = [config.number(name, None, above=0) for name in ("sigma_min", "sigma_max")]
    if fits:
        assert entry(*fields).read({"sigma_min": low, "sigma_max": high}).sigma_max == high
        return
    for alone in ("sigma_min", "sigma_max"):
        assert getattr(entry(*fields).read({alone: high}), alone) == high
    with pytest.raises(SetupError, match="the first has to be the smaller one") as caught:
        entry(*fields).read({"sigma_min": low, "sigma_max": high})
    assert caught.value.code == "scheduler.config"


def test_a_field_that_a_scheduler_does_not_read_changes_nothing() -> None:
    """Defaults of the fields, as diffusers' classes have them."""
    assert SchedulerConfig() == SchedulerConfig(
        num_train_timesteps=1000,
        beta_start=0.0001,
        beta_end=0.02,
        beta_schedule="linear",
        trained_betas=None,
        rescale_betas_zero_snr=False,
        prediction_type="epsilon",
        timestep_spacing="linspace",
        timestep_type="discrete",
        interpolation_type="linear",
        steps_offset=0,
        set_alpha_to_one=True,
        clip_sample=False,
        clip_sample_range=1.0,
        skip_prk_steps=False,
        variance_type=None,
        original_inference_steps=50,
        timestep_scaling=10.0,
        use_karras_sigmas=False,
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
        use_lu_lambdas=False,
        use_flow_sigmas=False,
        flow_shift=1.0,
        use_dynamic_shifting=False,
        time_shift_type="exponential",
        shift=1.0,
        shift_terminal=None,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
        invert_sigmas=False,
        stochastic_sampling=False,
        sigma_data=0.5,
        sigma_min=None,
        sigma_max=None,
        final_sigmas_type="zero",
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        predict_x0=True,
        disable_corrector=(),
        solver_p=None,
        thresholding=None,
        lower_order_final=True,
        euler_at_final=False,
        lambda_min_clipped=-math.inf,
    )


def test_numbers_of_all_schedulers_have_these_bounds() -> None:
    found: dict[str, set[str]] = {}
    for each in ENTRIES:
        for field in each.fields:
            if field.expected.startswith("a "):
                found.setdefault(field.name, set()).add(field.expected)
    order = "a whole number from 1 to 3"
    tokens = "a whole number from 1 to 1000000000"
    share = "a number above 0 and below 1"
    above_0 = "a number above 0 and below 1e+06"
    shift = "a number above 0.001 and below 1e+06"
    log_shift = "a number above -100 and below 100"
    assert found == {
        "num_train_timesteps": {"a whole number from 2 to 100000"},
        "beta_start": {share},
        "beta_end": {share},
        "trained_betas": {"a list of numbers above 0 and below 1"},
        "steps_offset": {"a whole number from 0 to 100000"},
        "sigma_min": {above_0},
        "sigma_max": {above_0},
        "sigma_data": {above_0},
        "clip_sample_range": {above_0},
        "timestep_scaling": {above_0},
        "shift": {shift},
        "flow_shift": {shift},
        "base_shift": {log_shift},
        "max_shift": {log_shift},
        "base_image_seq_len": {tokens},
        "max_image_seq_len": {tokens},
        "shift_terminal": {"a number above -1e-09 and below 1"},
        "lambda_min_clipped": {"a number below 1000 or -Infinity"},
        "disable_corrector": {"a list of whole numbers"},
        "solver_order": {order},
        "original_inference_steps": {"a whole number from 1 to 100000"},
    }


@pytest.mark.parametrize(
    ("name", "field", "words", "read"),
    [
        ("dpmpp_2m", "solver_type", ("logrho", "bh1", "bh2", "midpoint"), "midpoint"),
        ("dpmpp_singlestep", "solver_type", ("logrho", "bh1", "bh2", "midpoint"), "midpoint"),
        ("dpmpp_2m", "algorithm_type", ("deis", "dpmsolver++"), "dpmsolver++"),
        ("dpmpp_singlestep", "algorithm_type", ("deis", "dpmsolver++"), "dpmsolver++"),
        ("euler", "prediction_type", ("original_sample", "sample"), "sample"),
    ],
)
def test_words_of_other_classes_are_read_as_diffusers_reads_them(
    name: str, field: str, words: tuple[str, ...], read: str
) -> None:
    scheduler = next(each for each in ENTRIES if each.name == name)
    assert [getattr(scheduler.read({field: word}), field) for word in words] == [read] * len(words)


FEW, MORE = "epsilon, v_prediction", "epsilon, v_prediction, sample"
ALL = "epsilon, v_prediction, sample, flow_prediction"


def test_each_scheduler_has_its_class_and_predictions() -> None:
    def predictions(entry: Entry) -> str:
        return next((each.expected for each in entry.fields if each.name == "prediction_type"), "")

    assert {each.name: (each.class_name, predictions(each)) for each in ENTRIES} == {
        "ddim": ("DDIMScheduler", MORE),
        "pndm": ("PNDMScheduler", FEW),
        "euler": ("EulerDiscreteScheduler", MORE),
        "euler_ancestral": ("EulerAncestralDiscreteScheduler", FEW),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", ALL),
        "lms": ("LMSDiscreteScheduler", MORE),
        "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", ALL),
        "dpmpp_singlestep": ("DPMSolverSinglestepScheduler", ALL),
        "dpmpp_sde": ("DPMSolverSDEScheduler", FEW),
        "heun": ("HeunDiscreteScheduler", MORE),
        "kdpm2": ("KDPM2DiscreteScheduler", FEW),
        "kdpm2_ancestral": ("KDPM2AncestralDiscreteScheduler", FEW),
        "deis": ("DEISMultistepScheduler", ALL),
        "unipc": ("UniPCMultistepScheduler", ALL),
        "ddpm": ("DDPMScheduler", MORE),
        "lcm": ("LCMScheduler", MORE),
        "tcd": ("TCDScheduler", MORE),
        "flow_match_euler": ("FlowMatchEulerDiscreteScheduler", ""),
        "flow_match_heun": ("FlowMatchHeunDiscreteScheduler", ""),
        "scm": ("SCMScheduler", "trigflow"),
    }
    assert {each.name: each.options for each in ENTRIES if each.options} == {
        "ddim": ("eta",),
        **dict.fromkeys(("dpmpp_2m", "dpmpp_2m_sde", "dpmpp_singlestep", "deis", "unipc"), ("mu",)),
        "lcm": ("original_inference_steps", "strength"),
        "tcd": ("eta", "original_inference_steps", "strength"),
        "flow_match_euler": ("mu", "sigmas"),
    }


def test_noise_schedules_of_a_class_are_listed_with_its_default_first() -> None:
    def known(field: str) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for each in ENTRIES:
            for own in each.fields:
                if own.name == field:
                    names.setdefault(own.expected, []).append(each.name)
        return names

    plain = "linear, scaled_linear, squaredcos_cap_v2"
    others = known("beta_schedule")
    assert set(others) == {
        *(plain, f"{plain}, exp", f"{plain}, sigmoid, laplace"),
        "scaled_linear, linear, squaredcos_cap_v2",
    }
    assert others["scaled_linear, linear, squaredcos_cap_v2"] == ["lcm", "tcd"]
    assert others[f"{plain}, exp"] == ["heun"]
    assert others[f"{plain}, sigmoid, laplace"] == ["ddpm"]
    assert known("timestep_spacing")["leading, linspace, trailing"] == ["ddim", "pndm", "ddpm"]
    assert set(known("timestep_spacing")) == {"leading, linspace, trailing", "linspace, leading, trailing"}


@pytest.mark.torch
@pytest.mark.parametrize("name", [each.name for each in ENTRIES])
def test_defaults_are_those_of_the_class(name: str) -> None:
    import diffusers

    scheduler = next(each for each in ENTRIES if each.name == name)
    known = inspect.signature(getattr(diffusers, scheduler.class_name).__init__).parameters
    fixed = scheduler.fixed or {}
    fields = [each for each in scheduler.fields if each.name in known and each.name not in fixed]
    if not fields:
        pytest.skip("diffusers shows no such class without torchsde")
    # What nothing here reads is None, whatever stands for nothing there.
    theirs = {each.name: known[each.name].default or None for each in fields}
    assert {each.name: each.default or None for each in fields} == theirs
    assert len(theirs) > 1

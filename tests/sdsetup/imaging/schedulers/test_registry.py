"""Which scheduler serves which configuration, and what is refused by name."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.schedulers import (
    FLOW_NAMES,
    NAMES,
    NAMES_ALONE,
    check,
    make_scheduler,
    name_of,
    resolution_mu,
)
from sdsetup.imaging.schedulers.registry import _NEAREST, ENTRIES, class_of

SD14 = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "skip_prk_steps": True,
    "clip_sample": False,
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
ALL = [*NAMES, *FLOW_NAMES]
ENTRY = {entry.name: entry for entry in ENTRIES}


def base_of(name):
    return FLOW if name in FLOW_NAMES else SD14


def test_names_and_classes_are_unique():
    assert len({*ALL, *NAMES_ALONE}) == len(ALL) + len(NAMES_ALONE) == len(ENTRIES)
    assert len({(entry.class_name, entry.fixed is not None) for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        names = [field.name for field in entry.fields]
        assert len(set(names)) == len(names), entry.name


def test_a_configuration_is_known_by_its_class():
    for entry in ENTRIES:
        config = {"_class_name": entry.class_name, **(entry.fixed or {})}
        assert name_of(config) == entry.name
        assert check(config) == entry.name
    assert name_of({"_class_name": "FlaxDDIMScheduler"}) == "ddim"


@pytest.mark.parametrize(
    ("class_name", "nearest"),
    [
        ("SASolverScheduler", "dpmpp_2m_sde"),
        ("DDIMParallelScheduler", "ddim"),
        ("FlowMatchLCMScheduler", "flow_match_euler"),
        ("LTXEulerAncestralRFScheduler", "flow_match_euler"),
        ("MyEulerDiscreteScheduler", "euler"),
        ("EulerDiscreteV2", "euler"),
        ("FlowMatchEulerDiscreteStretchedScheduler", "flow_match_euler"),
        ("FlowEulerDiscreteScheduler", "flow_match_euler"),
    ],
)
def test_an_unknown_class_is_refused_by_name_with_the_nearest_offered(class_name, nearest):
    for refuse in (name_of, check):
        with pytest.raises(SetupError, match=class_name) as caught:
            refuse(SD14 | {"_class_name": class_name})
        assert caught.value.code == "scheduler.unsupported"
        assert f"--scheduler {nearest}," in caught.value.hint
    base = FLOW if nearest in FLOW_NAMES else SD14
    assert check(base | {"_class_name": class_name}, nearest) == nearest


@pytest.mark.parametrize(
    ("class_name", "listed", "other"),
    [
        ("ABCScheduler", "euler, euler_ancestral", "flow_match"),
        ("TDDScheduler", "ddim, pndm", "flow_match"),
        ("WobblyScheduler", "lcm, tcd", "flow_match"),
        ("Nonsense", "ddim, pndm", "flow_match"),
        ("RectifiedFlowScheduler", "flow_match_euler, flow_match_heun", "ddim"),
    ],
)
def test_for_a_class_that_is_like_none_of_ours_those_of_its_kind_are_listed(class_name, listed, other):
    with pytest.raises(SetupError, match=class_name) as caught:
        name_of({"_class_name": class_name})
    assert "nearest" not in caught.value.hint
    assert listed in caught.value.hint
    assert other not in caught.value.hint


def test_eta_is_for_schedulers_that_add_noise_back_and_a_share():
    for eta in (-0.1, 1.5, math.nan):
        with pytest.raises(UsageError, match="out of range") as caught:
            make_scheduler("ddim", SD14, 4, eta=eta)
        assert "--scheduler" not in caught.value.hint
    with pytest.raises(UsageError, match="euler") as caught:
        make_scheduler("euler", SD14, 4, eta=0.5)
    assert "--scheduler ddim or --scheduler tcd" in caught.value.hint
    with pytest.raises(UsageError, match="flow_match_euler") as caught:
        make_scheduler("flow_match_euler", FLOW, 4, eta=0.5)
    assert caught.value.hint == "leave --eta out."


def test_a_model_of_another_process_is_refused_whatever_is_asked_for():
    for name in (None, *ALL):
        with pytest.raises(SetupError, match="EDMEulerScheduler") as caught:
            check({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, name)
        assert "--scheduler" not in caught.value.hint


@pytest.mark.parametrize("missing", [{}, {"_class_name": None}, {"_class_name": ""}])
def test_a_missing_class_is_refused_unless_a_scheduler_is_named(missing):
    with pytest.raises(SetupError, match="_class_name is missing") as caught:
        name_of(missing)
    assert "--scheduler" in caught.value.hint
    assert check(missing, "euler") == "euler"


def test_the_hint_for_a_missing_class_fits_what_the_configuration_is_of():
    for config, likely in (({"beta_start": 0.1}, "ddim"), ({"shift": 3.0}, "flow_match_euler")):
        with pytest.raises(SetupError) as caught:
            name_of(config)
        assert caught.value.code == "scheduler.config"
        assert caught.value.hint.endswith(f"--scheduler {likely}.")


@pytest.mark.parametrize(("class_name", "nearest"), _NEAREST.items())
def test_what_is_offered_for_a_known_class_is_there(class_name, nearest):
    with pytest.raises(SetupError, match=class_name) as caught:
        name_of({"_class_name": class_name})
    assert caught.value.code == "scheduler.unsupported"
    assert nearest is None or nearest in ALL
    assert (f"--scheduler {nearest}," in caught.value.hint) == (nearest is not None)


@pytest.mark.parametrize("wrong", [[], 3, None, "DDIMScheduler", {"_class_name": ["DDIMScheduler"]}])
def test_what_is_no_configuration_is_refused(wrong):
    with pytest.raises(SetupError) as caught:
        check(wrong)
    assert caught.value.code == "scheduler.config"


def test_flow_matching_and_diffusion_are_not_mixed():
    for name in NAMES:
        with pytest.raises(SetupError, match="flow matching") as caught:
            check(FLOW, name)
        assert "--scheduler flow_match_euler" in caught.value.hint
    for name in FLOW_NAMES:
        with pytest.raises(SetupError, match="PNDMScheduler"):
            check(SD14, name)


@pytest.mark.parametrize("name", NAMES)
def test_fields_that_mean_nothing_to_the_wanted_scheduler_are_passed_over(name):
    foreign = {
        "solver_type": "logrho",
        "algorithm_type": "deis",
        "predict_x0": False,
        "thresholding": False,
        "dynamic_thresholding_ratio": 0.995,
        "tau_func": None,
        "predictor_order": 2,
        "corrector_order": [1],
        "_diffusers_version": "0.20",
        "noise_sampler_seed": "x",
        "time_shift_type": "exponential",
        "base_shift": 0.5,
    }
    reads = {field.name for field in ENTRY[name].fields}
    wrong = {key: value for key, value in foreign.items() if key not in reads or key == "solver_type"}
    assert check(SD14 | wrong, name) == name
    assert check(SD14 | wrong | {"solver_type": "bh2"}, name) == name
    assert check(SD14 | wrong | {"solver_type": "midpoint"}, name) == name


@pytest.mark.parametrize("name", ALL)
def test_null_takes_the_default_of_the_class(name):
    nulls = {field.name: None for field in ENTRY[name].fields}
    base = {"_class_name": base_of(name)["_class_name"]}
    steps = 4
    given_nulls = make_scheduler(name, base | nulls, steps)
    assert given_nulls.timesteps == make_scheduler(name, base, steps).timesteps


JUNK = [[1, 2], {"a": 1}, "many", -3, math.nan, math.inf, "", "0.5", [], 10**400, True, -0.0, 1e300]


@pytest.mark.parametrize("name", ALL)
def test_junk_gives_one_message_that_names_the_field_and_its_value(name):
    for field in ENTRY[name].fields:
        for value in JUNK:
            config = base_of(name) | {field.name: value}
            try:
                check(config, name)
            except SetupError as refused:
                assert refused.code in ("scheduler.config", "scheduler.unsupported")
                assert field.name in refused.message or "noise schedule" in refused.message
                assert len(refused.message) < 300
                assert refused.hint
        wrong = {"thresholding": True, "variance_type": "learned"}.get(field.name, {"a": 1})
        if field.name not in (ENTRY[name].fixed or {}):
            with pytest.raises(SetupError, match=field.name):
                check(base_of(name) | {field.name: wrong}, name)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2000),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(1e-4, 1.5),
    st.sampled_from(
        ["linspace", "leading", "trailing", "zero", "sigma_min", "sample", "v_prediction", "exp", "x"]
    ),
    st.lists(st.floats(0, 1), max_size=4),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(ALL),
    steps=st.integers(-1, 30),
    picks=st.lists(st.tuples(st.integers(0, 40), VALUES), max_size=3),
)
def test_any_values_run_or_are_refused_in_words(name, steps, picks):
    fields = [field.name for field in ENTRY[name].fields]
    config = dict(base_of(name))
    for place, value in picks:
        config[fields[place % len(fields)]] = value
    try:
        check(config, name)
        scheduler = make_scheduler(name, config, steps, mu=0.7)
        state = scheduler.start(np.ones((1, 4, 2, 2), np.float32))
        for _ in scheduler.timesteps:
            seen = scheduler.model_input(state)
            state = scheduler.advance(state, seen, seen if scheduler.wants_noise(state) else None)
    except SetupError as refused:
        assert refused.message
        return
    assert np.all(np.isfinite(scheduler.timesteps))


def test_the_hint_names_a_scheduler_that_takes_the_configuration():
    config = SD14 | {"prediction_type": "sample"}
    for name in ("pndm", "euler_ancestral", "kdpm2", "kdpm2_ancestral", "dpmpp_sde"):
        with pytest.raises(SetupError, match="prediction_type = 'sample'") as caught:
            check(config, name)
        assert caught.value.code == "scheduler.unsupported"
        assert "--scheduler ddim" in caught.value.hint
    assert check(config, "ddim") == "ddim"
    with pytest.raises(SetupError) as caught:
        check(SD14 | {"beta_end": [0.012]}, "ddim")
    assert "correct scheduler/scheduler_config.json" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("ddim", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ("lcm", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ("ddim", {"thresholding": True}, "thresholding"),
        ("ddpm", {"variance_type": "learned_range"}, "variance_type"),
        ("dpmpp_2m", {"variance_type": "learned"}, "variance_type"),
        ("dpmpp_2m", {"solver_order": 4}, "solver_order"),
        ("dpmpp_2m", {"algorithm_type": "dpmsolver"}, "algorithm_type"),
        ("unipc", {"solver_p": {"_class_name": "DDIMScheduler"}}, "solver_p"),
        ("unipc", {"predict_x0": False}, "predict_x0"),
        ("unipc", {"lower_order_final": False}, "lower_order_final"),
        ("unipc", {"shift_terminal": 0.1}, "shift_terminal"),
        ("euler", {"use_karras_sigmas": True, "use_beta_sigmas": True}, "use_beta_sigmas"),
        ("euler", {"use_karras_sigmas": True, "sigma_min": 3.0, "sigma_max": 2.0}, "sigma_min"),
        ("euler", {"use_karras_sigmas": True, "sigma_min": 1000.0}, "sigma_min"),
        ("euler", {"trained_betas": [0.1, 0.2]}, "trained_betas"),
        ("euler", {"beta_end": 0.9}, "betas"),
        ("flow_match_euler", {"base_image_seq_len": 9, "max_image_seq_len": 9}, "max_image_seq_len"),
    ],
)
def test_what_cannot_be_done_is_refused_when_planning(name, change, named):
    with pytest.raises(SetupError, match=named) as caught:
        check(base_of(name) | change, name)
    assert caught.value.code in ("scheduler.config", "scheduler.unsupported")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "steps", "eta"),
    [
        ("nonsense", 20, 0),
        ("ddim", 0, 0),
        ("ddim", -3, 0),
        ("ddim", 1000, 0),
        ("lms", 1001, 0),
        ("lcm", 51, 0),
        ("ddim", 9, 1.5),
        ("lms", 9, 0.5),
    ],
)
def test_senseless_requests_are_usage_errors(name, steps, eta):
    with pytest.raises(UsageError) as caught:
        make_scheduler(name, SD14, steps, eta=eta)
    assert caught.value.hint


@pytest.mark.parametrize("offset", [200, 999, 1000, 5000])
@pytest.mark.parametrize("name", ["ddim", "pndm", "euler", "heun", "ddpm"])
def test_an_offset_beyond_the_last_timestep_is_refused(name, offset):
    config = SD14 | {"steps_offset": offset, "timestep_spacing": "leading"}
    with pytest.raises(UsageError) as caught:
        make_scheduler(name, config, 7)
    assert caught.value.hint


def test_options_of_other_schedulers_are_usage_errors():
    for option in ({"sigmas": [1.0]}, {"original_inference_steps": 20}, {"strength": 0.5}):
        with pytest.raises(UsageError, match=next(iter(option))):
            make_scheduler("euler", SD14, 1, **option)
    with pytest.raises(UsageError, match="mu"):
        make_scheduler("flow_match_euler", FLOW | {"use_dynamic_shifting": True}, 4)
    with pytest.raises(UsageError, match="2 sigmas"):
        make_scheduler("flow_match_euler", FLOW, 4, sigmas=[1.0, 0.5])
    for strength in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match="strength"):
            make_scheduler("euler", SD14, 4).first_index(strength)


def test_the_shift_follows_the_size_of_the_image():
    config = FLOW | {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    assert resolution_mu(config, 4096) == pytest.approx(1.15)
    assert resolution_mu(config, 256) == pytest.approx(0.5)
    assert resolution_mu(FLOW, 4096) is None
    assert resolution_mu(SD14, 4096) is None


@pytest.mark.parametrize("steps", [500, 998, 999])
@pytest.mark.parametrize("name", NAMES)
def test_very_many_steps_run_or_are_refused_in_words(name, steps):
    noise = np.random.default_rng(0).standard_normal((1, 4, 2, 2), dtype=np.float32)
    try:
        scheduler = make_scheduler(name, SD14, steps)
    except UsageError as refused:
        assert refused.hint
        return
    state = scheduler.start(noise)
    for _ in scheduler.timesteps:
        fresh = noise if scheduler.wants_noise(state) else None
        state = scheduler.advance(state, np.zeros_like(noise), fresh)
    assert np.all(np.isfinite(state.sample))


def test_a_saved_configuration_may_hold_minus_infinity():
    config = json.loads('{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity}')
    assert check(config) == "dpmpp_2m"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("euller", "euler"),
        ("Euler a", "euler_ancestral"),
        ("DPM++ 2M Karras", "dpmpp_2m"),
        ("dpm++ 2m sde", "dpmpp_2m_sde"),
        ("UniPC", "unipc"),
    ],
)
def test_a_name_as_others_write_it_is_refused_with_ours(name: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        class_of(name)
    assert caught.value.hint.startswith(f"did you mean {meant}? choose one of: ddim,")


def test_a_name_that_is_like_none_is_refused_with_all() -> None:
    with pytest.raises(UsageError) as caught:
        class_of("something else")
    assert caught.value.hint.startswith("choose one of: ddim,")

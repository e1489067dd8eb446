"""The table of providers: names are ONNX Runtime's, passes and kernel tables exist, options are known."""

from __future__ import annotations

from importlib import import_module

import onnxruntime
import pytest

from conversions.errors import ConversionError
from conversions.providers.kernels import load_table
from conversions.providers.table import FIXED_SIZES, FREE_SIZES, PROVIDERS, Provider, provider_for

BY_TARGET = {provider.target: provider for provider in PROVIDERS}


def test_targets_are_in_the_order_of_preference() -> None:
    assert list(BY_TARGET) == ["directml", "cuda", "migraphx", "openvino", "webgpu", "coreml", "cpu"]
    assert len(BY_TARGET) == len(PROVIDERS)


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.target)
def test_a_provider_is_found_by_its_target_and_by_onnx_runtime_s_name(provider: Provider) -> None:
    assert provider_for(provider.target) is provider
    assert provider_for(provider.name) is provider
    assert provider.name in onnxruntime.get_all_providers()
    assert provider.name.removesuffix("ExecutionProvider").casefold() in ("dml", provider.target)


def test_an_unknown_target_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConversionError) as caught:
        provider_for("metal")
    assert caught.value.code == "target.unknown"
    assert caught.value.message == "There is no target 'metal'."
    assert caught.value.hint == f"Use one of: {', '.join(BY_TARGET)}."


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.target)
def test_passes_are_functions_of_their_modules(provider: Provider) -> None:
    for name in (*provider.passes, *provider.at_load):
        assert callable(getattr(import_module(f"conversions.passes.{name}"), name))
    assert set(provider.systems) <= {"win32", "linux", "darwin"}
    assert provider.dtypes <= {"float32", "float16", "bfloat16"}
    assert provider.label
    assert provider.verified


def having(name: str) -> set[str]:
    """Name the targets that have something."""
    return {provider.target for provider in PROVIDERS if getattr(provider, name)}


def test_what_only_some_providers_have() -> None:
    assert having("kernel_table") == {"directml"}
    assert load_table(BY_TARGET["directml"].kernel_table)
    assert having("plugin") == {"webgpu"}
    assert having("checks_attention") == {"webgpu"}
    assert having("fp16_variance") == having("stores_scores") == {"directml"}
    assert having("one_session_at_a_time") == having("own_process") == {"directml"}
    assert having("held_launches") == {"webgpu"}
    assert having("flash_attention") == {"cuda", "webgpu", "cpu"}
    assert having("im2col_pixels") == {"webgpu"}
    assert having("winograd") == {"directml", "webgpu"}
    assert having("preload") == {"cuda"}
    assert having("bound_memory") == having("replay_options") == {"cuda", "webgpu"}
    assert having("float32_options") == {"cuda"}
    assert having("session_config") == set()
    assert {target: BY_TARGET[target].device_metadata for target in having("device_metadata")} == {
        "directml": "DxgiAdapterNumber"
    }
    assert {each.target for each in PROVIDERS if each.sizes == FREE_SIZES} == {"cpu"}
    assert {each.sizes for each in PROVIDERS} == {FREE_SIZES, FIXED_SIZES}
    assert {each.target: each.opset for each in PROVIDERS} == dict.fromkeys(BY_TARGET, 18)
    assert {each.target: each.opset_limit for each in PROVIDERS if each.opset_limit} == {"directml": 22}


def test_each_provider_comes_with_a_package() -> None:
    assert {each.target: each.package for each in PROVIDERS} == {
        "directml": "onnxruntime-directml",
        "cuda": "onnxruntime-gpu",
        "migraphx": "onnxruntime-migraphx",
        "openvino": "onnxruntime-openvino",
        "webgpu": "onnxruntime-ep-webgpu",
        "coreml": "onnxruntime",
        "cpu": "onnxruntime",
    }
    assert BY_TARGET["webgpu"].plugin == BY_TARGET["webgpu"].package.replace("-", "_")


def test_systems_and_types_of_each_provider() -> None:
    every = ("win32", "linux", "darwin")
    assert {each.target: set(each.systems) for each in PROVIDERS} == {
        "directml": {"win32"},
        "cuda": {"win32", "linux"},
        "migraphx": {"linux"},
        "openvino": {"win32", "linux"},
        "webgpu": set(every),
        "coreml": {"darwin"},
        "cpu": set(every),
    }
    both = {"float32", "float16"}
    assert {each.target: each.dtypes for each in PROVIDERS} == {
        **dict.fromkeys(BY_TARGET, both),
        "cuda": both | {"bfloat16"},
        "cpu": {"float32"},
    }


def test_a_device_is_chosen_by_an_option_that_the_provider_knows() -> None:
    assert {each.target: each.device_option for each in PROVIDERS if each.device_option} == {
        "directml": "device_id",
        "cuda": "device_id",
        "migraphx": "device_id",
        "openvino": "device_type",
    }


def test_options_of_sessions() -> None:
    assert {each.target: dict(each.provider_options) for each in PROVIDERS if each.provider_options} == {
        "cuda": {
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",
            "prefer_nhwc": "1",
            "enable_skip_layer_norm_strict_mode": "1",
        },
        "openvino": {"precision": "ACCURACY"},
        "webgpu": {"enableInt64": "1", "storageBufferCacheMode": "lazyRelease"},
        "coreml": {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL", "RequireStaticInputShapes": "1"},
    }
    assert BY_TARGET["cuda"].float32_options == {"use_tf32": "0"}
    assert BY_TARGET["cuda"].replay_options == {"enable_cuda_graph": "1"}
    assert {target: BY_TARGET[target].bound_memory for target in having("bound_memory")} == {
        "cuda": "cuda",
        "webgpu": "webgpu",
    }


def test_passes_come_in_the_order_that_they_need() -> None:
    written_out = ("expand_group_norm", "expand_attention", "expand_fused_matmul")
    assert {each.target: each.at_load for each in PROVIDERS} == {
        "directml": ("drop_allowzero", "fused_matmul_to_gemm"),
        "cuda": (
            "fuse_group_norm",  # writes what the next two read
            "fuse_skip_group_norm",
            "group_norm_channels_last",
            "argmax_in_float",
            "fuse_bias_split_gelu",
            "fuse_skip_layer_norm",
        ),
        "migraphx": written_out,
        "openvino": written_out,
        "webgpu": ("expand_group_norm", "expand_fused_matmul", "fuse_skip_layer_norm"),
        "coreml": written_out,
        "cpu": ("expand_group_norm",),
    }
    assert {each.target: each.passes for each in PROVIDERS if each.passes} == {
        "directml": ("drop_allowzero", "fuse_group_norm", "fuse_bias_gelu"),
        **dict.fromkeys(("migraphx", "openvino", "coreml"), ("expand_attention",)),
    }

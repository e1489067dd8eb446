"""Table of the supported execution providers of ONNX Runtime.

To add a provider, add a row, and a kernel table under ``conversions/providers/kernels`` when machines
without the provider are to check graphs for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conversions.errors import ConversionError

FIXED_SIZES = "fixed"
"""A session has one image size, fixed by free-dimension overrides."""

FREE_SIZES = "free"
"""A session accepts any image size."""


@dataclass(frozen=True, kw_only=True)
class Winograd:
    """Which convolutions of 3x3 run by Winograd; see ``conversions.passes.winograd_convolution``.

    Attributes:
        least_pixels: Fewest pixels over which they do.
        in_turns: Whether they do where tiles have to take turns for the memory that they take. A provider
            that runs turns at once needs as much with them.
        timed: Whether a device first shows that it is faster so, since its driver may have kernels of its own
            for convolutions; see ``conversions.providers.winograd_check``.
    """

    least_pixels: int
    in_turns: bool = True
    timed: bool = False


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Properties of one execution provider.

    Attributes:
        target: Name in this project, as users give it.
        name: ONNX Runtime's name.
        label: Display name.
        package: PyPI package that provides it.
        plugin: Module with the provider as a plug-in library to register; empty when built in.
        systems: ``sys.platform`` values that it supports.
        opset: ONNX opset of its graphs.
        opset_limit: First opset without kernels for some operators of these models; None when unknown.
        dtypes: Element types that it supports.
        kernel_table: Table under ``conversions/providers/kernels``, empty when there is none.
        passes: Graph passes that this provider's graphs get when they are converted, by their module under
            ``conversions/passes``.
        at_load: Graph passes that every graph gets when a session is opened, in this order: against operators
            that this provider has no kernel for, and for operators that only it has one for; see
            ``conversions.providers.session_graph``.
        checks_attention: Whether MultiHeadAttention is tried on a device before a graph keeps it, since some
            device computes it wrong; see ``conversions.providers.attention_check``.
        fp16_variance: Whether a norm of float16 values keeps their variance in float16, so that it is wrong
            where the variance passes 65,504; see ``conversions.verification.fp16_overflow``.
        stores_scores: Whether attention keeps all its scores in memory, so that a session slices it; see
            ``conversions.passes.slice_attention``. Such a provider's sizes are fixed.
        winograd: Which convolutions of 3x3 run as matrix products of transformed tiles; None where none does.
            Such a provider's sizes are fixed.
        im2col_pixels: Most pixels over which a convolution runs as a batch of matrix products; 0 where none
            does. See ``conversions.passes.im2col_convolution``. Such a provider's sizes are fixed.
        activation_factor: Bytes that sessions hold for each byte of activations that are live at once in
            their graphs.
        held_launches: Number of further nodes that have to run until a session uses a tensor's memory again.
        denoiser_factor: Further factor on ``activation_factor`` for a denoiser's session.
        flash_attention: Whether MultiHeadAttention keeps no scores, unless it has a mask or a bias.
        sizes: ``FIXED_SIZES`` or ``FREE_SIZES``.
        one_session_at_a_time: Whether runs in one process must not overlap.
        preload: Whether to load the vendor's libraries installed by pip.
        own_process: Whether a lost device ends the process, so that sessions belong in a worker process.
        session_config: Entries for ``SessionOptions.add_session_config_entry``.
        provider_options: Options of every session.
        float32_options: Options for float32 graphs that are to compute at full precision.
        replay_options: Options of sessions that run often, on inputs of the same shapes: the launches of all
            kernels are recorded once and replayed (CUDA graphs, WebGPU's graph capture). Every node must be
            on the provider.
        bound_memory: ONNX Runtime's name of the device's memory in which such sessions keep their inputs and
            outputs (I/O binding); empty where they do not.
        device_option: Provider option that selects the device; empty when there is none.
        device_metadata: Key in an ``OrtEpDevice``'s metadata that holds that option's value; empty when the
            devices are counted in the order they are listed.
        verified: What has been tested on it, in words.
    """

    target: str
    name: str
    label: str
    package: str
    plugin: str = ""
    systems: tuple[str, ...] = ("win32", "linux", "darwin")
    opset: int = 18
    opset_limit: int | None = None
    dtypes: frozenset[str] = frozenset({"float32", "float16"})
    kernel_table: str = ""
    passes: tuple[str, ...] = ()
    at_load: tuple[str, ...] = ()
    checks_attention: bool = False
    fp16_variance: bool = False
    stores_scores: bool = False
    winograd: Winograd | None = None
    im2col_pixels: int = 0
    activation_factor: float = 1.0
    held_launches: int = 0
    denoiser_factor: float = 1.0
    flash_attention: bool = False
    sizes: str = FREE_SIZES
    one_session_at_a_time: bool = False
    preload: bool = False
    own_process: bool = False
    session_config: Mapping[str, str] = field(default_factory=dict)
    provider_options: Mapping[str, str] = field(default_factory=dict)
    float32_options: Mapping[str, str] = field(default_factory=dict)
    replay_options: Mapping[str, str] = field(default_factory=dict)
    bound_memory: str = ""
    device_option: str = ""
    device_metadata: str = ""
    verified: str = ""


PROVIDERS: tuple[Provider, ...] = (
    # Source: ONNX Runtime, docs/execution-providers/DirectML-ExecutionProvider.md; kernels/directml.tsv.
    Provider(
        target="directml",
        name="DmlExecutionProvider",
        label="DirectML",
        package="onnxruntime-directml",
        systems=("win32",),
        opset_limit=22,
        kernel_table="directml",
        passes=("drop_allowzero", "fuse_group_norm", "fuse_bias_gelu"),
        at_load=("drop_allowzero", "fused_matmul_to_gemm"),
        fp16_variance=True,
        stores_scores=True,
        # As measured on a card: docs/explanation/directml.md, "Convolutions by Winograd" and "Memory".
        winograd=Winograd(least_pixels=1024, in_turns=False, timed=True),
        activation_factor=2.5,
        sizes=FIXED_SIZES,
        one_session_at_a_time=True,
        own_process=True,
        device_option="device_id",
        device_metadata="DxgiAdapterNumber",
        verified="the Windows wheel's own DirectML.dll over a software driver; not a vendor's driver",
    ),
    # Source: ONNX Runtime, docs/execution-providers/CUDA-ExecutionProvider.md, docs/OperatorKernels.md; in
    # its sources contrib_ops/cuda/diffusion/group_norm.cc (channels must come last) and
    # core/providers/cuda/nn/conv.cc: HEURISTIC asks cuDNN for its own choice, as PyTorch does; DEFAULT is
    # its slow fallback. kSameAsRequested keeps the arena from doubling. SkipLayerNormalization sums in
    # float32 in its strict mode; not every version does so without. prefer_nhwc and the operators are as
    # they were measured to be fastest: docs/explanation/providers.md.
    Provider(
        target="cuda",
        name="CUDAExecutionProvider",
        label="CUDA",
        package="onnxruntime-gpu",
        systems=("win32", "linux"),
        dtypes=frozenset({"float32", "float16", "bfloat16"}),
        at_load=(
            "fuse_group_norm",
            "fuse_skip_group_norm",
            "group_norm_channels_last",
            "argmax_in_float",
            "fuse_bias_split_gelu",
            "fuse_skip_layer_norm",
        ),
        # As measured on a card: docs/explanation/providers.md, "CUDA", "Memory".
        activation_factor=2.5,
        denoiser_factor=2.0,
        flash_attention=True,
        sizes=FIXED_SIZES,
        preload=True,
        provider_options={
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",
            "prefer_nhwc": "1",
            "enable_skip_layer_norm_strict_mode": "1",
        },
        # TF32 keeps float32's range, and ten bits, about float16's. What stays float32 in a float16 package
        # wants the range, and PyTorch computes its convolutions so too. Off for all, it would take the tensor
        # cores away from float16 convolutions.
        float32_options={"use_tf32": "0"},
        replay_options={"enable_cuda_graph": "1"},
        bound_memory="cuda",
        device_option="device_id",
        verified="an H100 and an H200: parity, judged images, and speed against PyTorch and optimum-onnx",
    ),
    # Source: ONNX Runtime, docs/execution-providers/MIGraphX-ExecutionProvider.md. It compiles for one size.
    Provider(
        target="migraphx",
        name="MIGraphXExecutionProvider",
        label="MIGraphX",
        package="onnxruntime-migraphx",
        systems=("linux",),
        passes=("expand_attention",),
        at_load=("expand_group_norm", "expand_attention", "expand_fused_matmul"),
        sizes=FIXED_SIZES,
        device_option="device_id",
        verified="nothing; written against its documentation",
    ),
    # Source: ONNX Runtime, docs/execution-providers/OpenVINO-ExecutionProvider.md.
    Provider(
        target="openvino",
        name="OpenVINOExecutionProvider",
        label="OpenVINO",
        package="onnxruntime-openvino",
        systems=("win32", "linux"),
        passes=("expand_attention",),
        at_load=("expand_group_norm", "expand_attention", "expand_fused_matmul"),
        sizes=FIXED_SIZES,
        # It computes in what the package holds; left alone, Intel's GPUs compute a float32 graph in float16.
        provider_options={"precision": "ACCURACY"},
        device_option="device_type",
        verified="its CPU device, float32 and float16",
    ),
    # Source: the onnxruntime-ep-webgpu wheel's own description. Its MultiHeadAttention saves a third of a
    # step on an NVIDIA card, but is wrong in float32 on SwiftShader: docs/explanation/providers.md.
    # Without enableInt64 the text encoder's search for the last token goes to the CPU.
    Provider(
        target="webgpu",
        name="WebGpuExecutionProvider",
        label="WebGPU",
        package="onnxruntime-ep-webgpu",
        plugin="onnxruntime_ep_webgpu",
        at_load=("expand_group_norm", "expand_fused_matmul", "fuse_skip_layer_norm"),
        checks_attention=True,
        sizes=FIXED_SIZES,
        winograd=Winograd(least_pixels=1024),
        im2col_pixels=512,
        # As measured on a card: docs/explanation/providers.md, "WebGPU".
        activation_factor=1.2,
        held_launches=24,
        denoiser_factor=1.85,
        flash_attention=True,
        # lazyRelease gives buffers back, some launches later. By default they are kept for good: SD 1.4's
        # U-Net takes 4.2 GiB instead of 3.3.
        provider_options={"enableInt64": "1", "storageBufferCacheMode": "lazyRelease"},
        replay_options={"enableGraphCapture": "1"},
        bound_memory="webgpu",
        verified="an H200 through Vulkan, float16 and float32: parity, judged images, and speed; SwiftShader",
    ),
    # Source: ONNX Runtime, docs/execution-providers/CoreML-ExecutionProvider.md.
    Provider(
        target="coreml",
        name="CoreMLExecutionProvider",
        label="CoreML",
        package="onnxruntime",
        systems=("darwin",),
        passes=("expand_attention",),
        at_load=("expand_group_norm", "expand_attention", "expand_fused_matmul"),
        sizes=FIXED_SIZES,
        provider_options={
            "ModelFormat": "MLProgram",
            "MLComputeUnits": "ALL",
            "RequireStaticInputShapes": "1",
        },
        verified="nothing; written against its documentation",
    ),
    Provider(
        target="cpu",
        name="CPUExecutionProvider",
        label="CPU",
        package="onnxruntime",
        dtypes=frozenset({"float32"}),
        at_load=("expand_group_norm",),
        # Source: ONNX Runtime, contrib_ops/cpu/bert/multihead_attention.cc. The demo's U-Net takes 0.6 GB at
        # 1024x1024, its scores would be 8.6. With these factors SD 1.4's denoiser and autoencoder take 0.79
        # to 1.11 of the forecast at 512x512 and 768x768.
        flash_attention=True,
        activation_factor=1.2,
        denoiser_factor=1.8,
        verified="every test run",
    ),
)
"""All providers; the order is the order of preference on a machine that has several."""


def provider_for(target: str) -> Provider:
    """Return the row of a target.

    Args:
        target: A target as users give it, or ONNX Runtime's name of a provider.

    Raises:
        ConversionError: There is no such target.
    """
    for provider in PROVIDERS:
        if target in (provider.target, provider.name):
            return provider
    known = ", ".join(provider.target for provider in PROVIDERS)
    raise ConversionError("target.unknown", f"There is no target '{target}'.", f"Use one of: {known}.")

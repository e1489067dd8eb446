"""Load and run one submodel in ONNX Runtime on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from conversions.errors import ConversionError
from conversions.providers import onnx_session
from conversions.providers.devices import Device
from conversions.providers.session_graph import Edit
from conversions.verification.ep_assignment import Placement, add_profile, read_placement
from conversions.weights.kernels import to_float16, to_float32
from sdsetup.error_hints import hint_for
from sdsetup.errors import SetupError
from sdsetup.runtime.device_binding import BindingError, DeviceBinding

if TYPE_CHECKING:
    import onnx_ir as ir

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]

Dimensions: TypeAlias = Mapping[str, tuple[str, ...]]
"""Names of the dimensions of a graph's inputs, by input."""

_NUMPY_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


_MEMORY_SIGNS = (
    "8007000E",  # E_OUTOFMEMORY
    "OUT OF MEMORY",
    "BAD_ALLOC",
    "BAD ALLOCATION",
    "STATUS_ALLOC_FAILED",  # of cuDNN and cuBLAS
    # Of ONNX Runtime's arena, where the device is full and where the arena has a limit.
    "FAILED TO ALLOCATE MEMORY",
    "IS SMALLER THAN REQUESTED BYTES",
)

OUT_OF_MEMORY = "device.memory"
"""Code of an :class:`OutOfMemoryError`, by which it is known across processes."""


class DeviceLostError(Exception):
    """The graphics driver has reset or lost the device; this process cannot use it any more."""


class ReplayError(Exception):
    """The launches of a session's kernels cannot be recorded; without that it may well run."""


class OutOfMemoryError(SetupError):
    """The device has too little memory for a session or a run."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An open session and its properties.

    Attributes:
        session: The ``onnxruntime.InferenceSession``.
        sizes: Free dimensions that were fixed for it; empty when it takes any size.
        placement: Where its nodes run.
        load_seconds: How long opening it took.
        profiling: Whether its next run is being measured.
        binding: Keeps its inputs and outputs on the device; None where they stay in main memory.
    """

    session: Any = field(repr=False)
    sizes: Mapping[str, int]
    placement: Placement
    load_seconds: float
    profiling: bool = False
    binding: DeviceBinding | None = None


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a graph takes and gives.

    Attributes:
        inputs: Names of the inputs' dimensions; a dimension without one is empty.
        outputs: Shapes by output: sizes, and names or terms where they are free.
    """

    inputs: Dimensions
    outputs: Mapping[str, tuple[int | str, ...]]


def signature_of(graph: Path) -> Signature:
    """Read what a graph takes and gives.

    Raises:
        SetupError: The graph cannot be read.
    """
    import onnx

    try:
        declared = onnx.load(graph, load_external_data=False).graph
    except Exception as error:
        raise explained(error, f"opening {graph.parent.name}") from error
    return Signature(
        inputs={each.name: tuple(dim.dim_param for dim in _dims(each)) for each in declared.input},
        outputs={
            each.name: tuple(dim.dim_param or dim.dim_value for dim in _dims(each))
            for each in declared.output
        },
    )


def dimensions_of(graph: Path) -> Dimensions:
    """Read the names of the dimensions of a graph's inputs; a dimension without one is empty.

    Raises:
        SetupError: The graph cannot be read.
    """
    return signature_of(graph).inputs


def free_dimensions(model: ir.Model) -> Dimensions:
    """Return the names of the dimensions of the inputs of a graph in memory, as :func:`dimensions_of`."""
    return {
        str(value.name): tuple("" if isinstance(dim, int) else str(dim.value or "") for dim in value.shape)
        for value in model.graph.inputs
        if value.shape is not None
    }


def _dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def sizes_of(dimensions: Dimensions, inputs: Arrays) -> dict[str, int]:
    """Map the named dimensions of a graph's inputs to their sizes in ``inputs``."""
    return {
        name: size
        for tensor, names in dimensions.items()
        if tensor in inputs
        for name, size in zip(names, inputs[tensor].shape, strict=True)
        if name
    }


def load(
    graph: Path,
    device: Device,
    sizes: Mapping[str, int],
    *,
    upcast: bool = False,
    exact: bool = True,
    edits: Sequence[Edit] = (),
    weights: Arrays | None = None,
    part: ir.Model | None = None,
    replayed: bool = True,
) -> Loaded:
    """Open a session for a graph on a device.

    Args:
        graph: The ONNX file.
        device: Where to run; ONNX Runtime may put single nodes elsewhere; see the placement.
        sizes: Of the dimensions to fix, by name; empty on providers that take any size.
        upcast: Compute in float32 although the graph is float16, on the same stored weights.
        exact: Compute float32 at full precision, where the provider has a faster one.
        edits: Further changes of the graph for this session.
        weights: Arrays to use instead of what the package holds, by initializer.
        part: A part of the graph to open instead of the whole.
        replayed: Record the launches of kernels and replay them, where the provider can.

    Raises:
        SetupError: The graph cannot be loaded, or not on this provider.
        ReplayError: It cannot be loaded so that launches are recorded.
        DeviceLostError: The device is gone.
    """
    started = perf_counter()
    memory = device.provider.bound_memory if replayed else ""
    try:
        session = onnx_session.open_session(
            graph,
            device,
            sizes,
            upcast=upcast,
            exact=exact,
            edits=edits,
            weights=weights,
            part=part,
            replayed=bool(memory),
        )
    except ConversionError as error:
        raise SetupError("device.refused", error.message, hint_for(error)) from error
    except Exception as error:
        if memory and onnx_session.cannot_replay(error):
            raise ReplayError(str(error)) from error
        raise explained(error, f"opening {graph.parent.name}") from error
    return Loaded(
        session=session,
        sizes=sizes,
        placement=read_placement(session, device.provider.name),
        load_seconds=perf_counter() - started,
        profiling=onnx_session.is_profiled(device.provider),
        binding=DeviceBinding(session=session, memory=memory, number=device.number) if memory else None,
    )


def run(loaded: Loaded, inputs: Arrays, what: str, *, widen: bool = True) -> tuple[dict[str, Array], Loaded]:
    """Run a session once.

    Args:
        loaded: The session.
        inputs: Arrays by input name; numbers are cast to the types that the graph wants.
        what: What a message calls this, for example "running the denoiser".
        widen: Return float16 outputs as float32.

    Returns:
        The outputs by name; and the session, with its times once they are measured.

    Raises:
        SetupError: ONNX Runtime failed.
        ReplayError: It failed in the run whose launches are recorded, or inputs cannot stay on the device.
        DeviceLostError: The device is gone.
    """
    wanted = {entry.name: _NUMPY_TYPES[entry.type] for entry in loaded.session.get_inputs()}
    feeds = {name: _as_type(inputs[name], dtype) for name, dtype in wanted.items()}
    names = [entry.name for entry in loaded.session.get_outputs()]
    try:
        binding = loaded.binding
        results = loaded.session.run(names, feeds) if binding is None else binding.run(feeds)
    except BindingError as error:
        fault = explained(error.__cause__, what) if isinstance(error.__cause__, Exception) else error
        # Neither says that launches cannot be recorded.
        if isinstance(fault, (OutOfMemoryError, DeviceLostError)):
            raise fault from error
        raise ReplayError(str(error)) from error
    except Exception as error:
        if loaded.binding is not None and loaded.binding.runs == 1:
            raise ReplayError(str(error)) from error
        raise explained(error, what) from error
    if loaded.profiling:
        placement = add_profile(loaded.placement, loaded.session)
        loaded = replace(loaded, profiling=False, placement=placement)
    if widen:
        results = [to_float32(result) if result.dtype == np.float16 else result for result in results]
    return dict(zip(names, results, strict=True)), loaded


def _as_type(array: Array, dtype: Any) -> Array:
    """Return a contiguous array of a type; beyond float16's range it is infinite, seen in the outputs."""
    if dtype is np.float16 and array.dtype == np.float32:
        return to_float16(np.ascontiguousarray(array))
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=dtype)


def explained(error: Exception, doing: str) -> Exception:
    """Translate an exception of ONNX Runtime into one with the next step.

    Source: the codes are DXGI's and Windows': DEVICE_REMOVED, DEVICE_HUNG, DEVICE_RESET,
    DRIVER_INTERNAL_ERROR; E_OUTOFMEMORY.
    """
    text = str(error)
    flat = text.upper()
    if any(code in flat for code in ("887A0005", "887A0006", "887A0007", "887A0020")):
        return DeviceLostError(f"{doing}: {text}")
    if isinstance(error, MemoryError) or any(sign in flat for sign in _MEMORY_SIGNS):
        return OutOfMemoryError(
            OUT_OF_MEMORY,
            f"the device ran out of memory while {doing}.",
            "use --low-vram, --vae-tiling, a smaller --width and --height, or fewer --images.",
        )
    if onnx_session.wants_float16(error):
        return SetupError(
            "device.float16",
            f"the device does not compute in float16, which was needed while {doing}.",
            "convert the model again with --precision fp32.",
        )
    first_line = text.strip().split("\n")[0]
    return SetupError(
        "runtime.failed",
        f"ONNX Runtime failed while {doing}: {first_line}",
        "sdsetup verify PACKAGE checks the files; sdsetup doctor checks the machine.",
    )

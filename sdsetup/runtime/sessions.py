"""One submodel in ONNX Runtime, on one device."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from conversions.providers import FIXED_SIZES
from conversions.runnable import runnable, runnable_in_float32
from sdsetup.errors import SetupError
from sdsetup.runtime.devices import Device, listed_by_onnxruntime
from sdsetup.runtime.placement import Placement, node_counts

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]

_NUMPY_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class DeviceLostError(Exception):
    """The graphics driver has reset or lost the device: nothing more can be run in this process."""


class OutOfMemoryError(SetupError):
    """The device has no room for a session or a run."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An open session and what is known of it.

    Attributes:
        session: The ``onnxruntime.InferenceSession``.
        sizes: Free dimensions that were fixed for it; empty when it takes any size.
        placement: Where its nodes run.
        load_seconds: How long opening it took.
        profiling: Whether its next run is being measured.
    """

    session: Any = field(repr=False)
    sizes: Mapping[str, int]
    placement: Placement
    load_seconds: float
    profiling: bool = False


def sizes_of(graph: Path, inputs: Arrays) -> dict[str, int]:
    """Read which named dimension has which size in ``inputs``, from the graph alone."""
    import onnx

    sizes: dict[str, int] = {}
    for declared in onnx.load(graph, load_external_data=False).graph.input:
        if declared.name in inputs:
            named = [dimension.dim_param for dimension in declared.type.tensor_type.shape.dim]
            sizes |= {
                name: size for name, size in zip(named, inputs[declared.name].shape, strict=True) if name
            }
    return sizes


def load(graph: Path, device: Device, inputs: Arrays, *, widened: bool = False) -> Loaded:
    """Open a session for a graph on a device.

    Args:
        graph: The ONNX file.
        device: Where to run; ONNX Runtime may put single nodes elsewhere, which the placement tells.
        inputs: The first run's inputs: their sizes are fixed on providers that want it.
        widened: Compute in float32 although the graph is float16, on the same stored weights.

    Raises:
        SetupError: The graph cannot be loaded, or the provider did not take the session at all.
        DeviceLostError: The device is gone.
    """
    import onnxruntime

    provider = device.provider
    sizes = sizes_of(graph, inputs) if provider.sizes == FIXED_SIZES else {}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and said once
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for key, value in provider.session_config.items():
        options.add_session_config_entry(key, value)
    for dimension, size in sizes.items():
        options.add_free_dimension_override_by_name(dimension, size)
    profiling = provider.target != "cpu"
    if profiling:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(tempfile.gettempdir()) / "sdsetup-profile")
    started = perf_counter()
    form = (runnable_in_float32 if widened else runnable)(graph, provider.name)
    for key, value in form.config.items():
        options.add_session_config_entry(key, value)
    try:
        if device.listed is not None:
            chosen = listed_by_onnxruntime()[device.listed]
            options.add_provider_for_devices([chosen], dict(provider.provider_options))
            session = onnxruntime.InferenceSession(form.model, options)
        else:
            settings = dict(provider.provider_options)
            if provider.device_option == "device_id":
                settings["device_id"] = str(device.number)
            session = onnxruntime.InferenceSession(form.model, options, providers=[(provider.name, settings)])
    except Exception as error:
        raise explained(error, f"opening {graph.parent.name}") from error
    if (taken := session.get_providers()[0]) != provider.name:
        raise SetupError(
            "device.refused",
            f"{device} did not take {graph.parent.name}: ONNX Runtime fell back to {taken}.",
            "sdsetup doctor says what is wrong; --provider cpu runs without a GPU.",
        )
    return Loaded(
        session=session,
        sizes=sizes,
        placement=Placement(provider=provider.name, nodes=node_counts(session)),
        load_seconds=perf_counter() - started,
        profiling=profiling,
    )


def run(loaded: Loaded, inputs: Arrays, what: str) -> tuple[dict[str, Array], Loaded]:
    """Run a session once.

    Args:
        loaded: The session.
        inputs: Arrays by input name; numbers are cast to the types that the graph wants.
        what: What a message calls this, for example "running unet".

    Returns:
        The outputs by name, floats as float32; and the session, with its times once they are measured.
    """
    wanted = {entry.name: _NUMPY_TYPES[entry.type] for entry in loaded.session.get_inputs()}
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and shows in the outputs
        feeds = {name: np.ascontiguousarray(inputs[name], dtype=dtype) for name, dtype in wanted.items()}
    names = [entry.name for entry in loaded.session.get_outputs()]
    try:
        results = loaded.session.run(names, feeds)
    except Exception as error:
        raise explained(error, what) from error
    if loaded.profiling:
        loaded = _with_times(loaded)
    widened = [result.astype(np.float32) if result.dtype == np.float16 else result for result in results]
    return dict(zip(names, widened, strict=True)), loaded


def _with_times(loaded: Loaded) -> Loaded:
    """End the measurement after the first run, so that later ones are not slowed down."""
    profile = Path(loaded.session.end_profiling())
    try:
        placement = loaded.placement.measured(profile)
    finally:
        profile.unlink(missing_ok=True)
    return replace(loaded, profiling=False, placement=placement)


def explained(error: Exception, doing: str) -> Exception:
    """Turn an exception of ONNX Runtime into one that says what to do.

    Source: the codes are DXGI's and Windows': DEVICE_REMOVED, DEVICE_HUNG, DEVICE_RESET,
    DRIVER_INTERNAL_ERROR; E_OUTOFMEMORY.
    """
    text = str(error)
    flat = text.upper()
    if any(code in flat for code in ("887A0005", "887A0006", "887A0007", "887A0020")):
        return DeviceLostError(f"{doing}: {text}")
    memory = ("8007000E", "OUT OF MEMORY", "BAD_ALLOC", "BAD ALLOCATION", "FAILED TO ALLOCATE MEMORY")
    if isinstance(error, MemoryError) or any(sign in flat for sign in memory):
        return OutOfMemoryError(
            "device.memory",
            f"the device ran out of memory while {doing}.",
            "use --low-vram, a smaller --width and --height, or fewer --images.",
        )
    first_line = text.strip().split("\n")[0]
    return SetupError(
        "runtime.failed",
        f"ONNX Runtime failed while {doing}: {first_line}",
        "sdsetup verify PACKAGE checks the files; sdsetup doctor checks the machine.",
    )

"""What this machine is: frozen facts, read side by side, each reader within its own time.

Standard library only. Facts are read here and judged elsewhere; a reader that fails or takes too long
leaves None and its reason in ``Environment.unknown``, never an exception.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdsetup.machine.adapters import Adapter


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The computer and its operating system; sizes in bytes, None where the system does not tell."""

    platform: str
    release: str = ""
    build: int = 0
    architecture: str = ""
    cpu: str = ""
    cpu_features: frozenset[str] = frozenset()
    cores: int = 1
    ram_bytes: int | None = None
    ram_available_bytes: int | None = None
    commit_limit_bytes: int | None = None
    commit_used_bytes: int | None = None
    wsl: bool = False
    container: str = ""
    remote_session: str = ""
    long_paths: bool | None = None
    vc_runtime: tuple[int, int] | None = None
    real_time_scanner: str = ""
    rocm: str = ""


@dataclass(frozen=True, kw_only=True)
class Python:
    """The running interpreter, and the environment that sdsetup keeps."""

    version: tuple[int, int, int]
    bits: int = 64
    implementation: str = "CPython"
    free_threaded: bool = False
    executable: str = ""
    store: bool = False
    in_environment: bool = False
    environment: str = ""
    environment_state: str = "absent"
    pip: str = ""
    pip_error: str = ""
    has_ensurepip: bool = True


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A place that is or will be written to; ``probed`` is the nearest folder that exists.

    ``writable``, ``symlinks``, ``hard_links`` and ``case_sensitive`` were tried there, not looked up.
    ``error`` is what the system said when writing failed.
    """

    role: str
    path: str
    probed: str = ""
    free_bytes: int | None = None
    total_bytes: int | None = None
    file_system: str = ""
    writable: bool | None = None
    error: str = ""
    symlinks: bool | None = None
    hard_links: bool | None = None
    case_sensitive: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Packages:
    """What is installed for this Python: versions by normalized name, and what is torn."""

    versions: Mapping[str, str] = field(default_factory=dict)
    torn: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProviderTrial:
    """A tiny graph that was really run on a provider; ``error`` is empty when the numbers were right."""

    provider: str
    device: int | None = None
    error: str = ""
    seconds: float = 0.0
    largest_error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """ONNX Runtime as it imports here, in a process of its own."""

    version: str = ""
    import_error: str = ""
    providers: tuple[str, ...] = ()
    directml_version: str = ""
    directml_path: str = ""
    trials: tuple[ProviderTrial, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Programs that are found by name; an empty version means it is not there."""

    git: str = ""
    vulkan: str = ""


@dataclass(frozen=True, kw_only=True)
class Hub:
    """What the model hub answers from here. Holds no token, only where it came from and what it is.

    ``reach`` is ``online``, ``offline`` (nothing answers, or asked for), ``proxy`` (the proxy does not
    answer), ``tls`` (the certificate is not trusted) or ``error``. ``token_state`` is ``none``, ``valid``,
    ``refused``, ``malformed`` (``token_fault`` says how) or ``unknown``. ``access`` is the model's:
    ``granted``, ``gated``, ``refused``, ``missing``.
    """

    endpoint: str
    default_endpoint: bool = True
    reach: str = "offline"
    detail: str = ""
    seconds: float = 0.0
    issuer: str = ""
    clock_ahead_seconds: float | None = None
    proxy: str = ""
    proxy_variable: str = ""
    token_source: str = ""
    token_state: str = "none"
    token_kind: str = ""
    token_fault: str = ""
    hidden_token: str = ""
    data_host: str = ""
    model: str = ""
    access: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the use asked about would take: by ``sdsetup convert``'s plan, or by a package's own graphs.

    Attributes:
        model: What was planned; empty when nothing was asked.
        converting: Whether the model is to be converted; else its images alone are forecast.
        error: Why there is no plan, or empty. Then the sizes mean nothing.
        code: The error's stable code; empty when the planning itself broke.
        hint: What the error says to do.
        download_bytes: What has yet to be downloaded.
        package_bytes: What is written.
        ram_bytes: Main memory at the peak, a conversion's verification and first image included.
        ram_least_bytes: The same for images with one submodel loaded at a time; 0 where that is no choice.
        vram_bytes: Adapter memory for images with everything loaded; None before graphs are traced.
        vram_least_bytes: The same with one submodel loaded at a time.
        side: Width and height of those images, in pixels.
        largest_side: Of the largest image that fits the card here, in pixels; None when that is unknown.
    """

    model: str = ""
    converting: bool = True
    error: str = ""
    code: str = ""
    hint: str = ""
    download_bytes: int = 0
    package_bytes: int = 0
    ram_bytes: int = 0
    ram_least_bytes: int = 0
    vram_bytes: int | None = None
    vram_least_bytes: int | None = None
    side: int = 0
    largest_side: int | None = None


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Everything that was read. A None field was not read; ``unknown`` says why, by field."""

    machine: Machine | None = None
    python: Python | None = None
    adapters: tuple[Adapter, ...] | None = None
    folders: tuple[Folder, ...] | None = None
    packages: Packages | None = None
    runtime: Runtime | None = None
    tools: Tools | None = None
    hub: Hub | None = None
    plan: Plan | None = None
    shell: str = "sh"
    home: str = ""
    user: str = ""
    host: str = ""
    unknown: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What the reading depends on.

    Attributes:
        output: Where packages or images would be written.
        model: A Hub repository whose access matters, or empty.
        offline: Leave the network alone.
        converting: The model whose conversion is to be planned: a folder, a repository, ``demo``, or empty.
        drawing: The package whose images are to be forecast: a folder, or empty.
    """

    output: Path
    model: str = ""
    offline: bool = False
    converting: str = ""
    drawing: str = ""


Reader = Callable[[Questions], Any]


def probe(questions: Questions, only: frozenset[str] | None = None) -> Environment:
    """Read this machine.

    Args:
        questions: What the reading depends on.
        only: Fields of Environment to read; None reads all.
    """
    from sdsetup.machine.readers import LIMITS_SECONDS, identity, readers

    chosen = {name: reader for name, reader in readers().items() if only is None or name in only}
    values, unknown, seconds = _side_by_side(chosen, questions, LIMITS_SECONDS)
    return Environment(**values, **identity(), unknown=unknown, seconds=seconds)


def _side_by_side(
    readers: Mapping[str, Reader], questions: Questions, limits: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, str], dict[str, float]]:
    values: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def read(name: str, reader: Reader) -> None:
        try:
            value = reader(questions)
        except Exception as error:  # noqa: BLE001 - a reader must never end the doctor
            unknown[name] = f"reading it failed: {type(error).__name__}: {error}"
        else:
            values[name] = value
        seconds[name] = time.monotonic() - began

    threads = {
        # Daemons: a reader that hangs in the system is left behind, and does not keep the program alive.
        name: threading.Thread(target=read, args=(name, reader), daemon=True)
        for name, reader in readers.items()
    }
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, began + limits[name] - time.monotonic()))
    late = {
        name: f"no answer within {limits[name]:g} s" for name, thread in threads.items() if thread.is_alive()
    }
    # Copies: a late thread may still write.
    done = {name: value for name, value in list(values.items()) if name not in late}
    return done, {**dict(unknown), **late}, dict(seconds)

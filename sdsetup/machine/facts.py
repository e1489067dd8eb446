"""What this machine is: frozen facts. ``machine.probe`` reads them, the doctor judges them.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdsetup.machine.adapters.adapter import Adapter


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
    """The running interpreter, and the environment that sdsetup keeps.

    ``environment_fault`` and ``environment_advice`` are what ``sdsetup install`` says of an environment that
    it can neither use nor make anew. ``pip_left_out`` are pip's settings that would redirect an installation,
    ``pip_kept`` those that are handed on. ``left_out_paths`` are folders of PYTHONPATH, with what they hide.
    """

    version: tuple[int, int, int]
    bits: int = 64
    implementation: str = "CPython"
    free_threaded: bool = False
    executable: str = ""
    store: bool = False
    in_environment: bool = False
    environment: str = ""
    environment_state: str = "absent"
    environment_fault: str = ""
    environment_advice: str = ""
    pip: str = ""
    pip_error: str = ""
    has_ensurepip: bool = True
    pip_left_out: Mapping[str, str] = field(default_factory=dict)
    pip_kept: Mapping[str, str] = field(default_factory=dict)
    pip_settings_error: str = ""
    left_out_paths: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A place that is or will be written to; ``probed`` is the nearest folder that exists.

    ``writable``, ``symlinks``, ``hard_links`` and ``case_sensitive`` were tried there, not looked up.
    ``error`` is what the system said when writing failed. ``variable`` is the environment variable that
    decides where the place is, ``set_by`` the same when it is set.
    """

    role: str
    path: str
    variable: str = ""
    set_by: str = ""
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
    """What is installed for this Python, all by normalized name.

    Attributes:
        versions: Of everything that is installed.
        torn: What is wrong with the files of what sdsetup needs.
        missing: What is needed and not installed, and who needs it.
        extras: Which extras of it are needed: ``"socks"`` of httpx2.
        unfit: What is installed in a version that one which needs it does not allow.
        core: What is needed without converting; the rest is for tracing and comparing with PyTorch.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    torn: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, str] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)
    core: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Imports:
    """What could not be imported, with the error; ``tried`` is how many modules were."""

    tried: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)


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
    """Everything that was read. A None field was not read; ``unknown`` says why, by field.

    ``command`` starts sdsetup from the present folder.
    """

    machine: Machine | None = None
    python: Python | None = None
    adapters: tuple[Adapter, ...] | None = None
    folders: tuple[Folder, ...] | None = None
    packages: Packages | None = None
    imports: Imports | None = None
    runtime: Runtime | None = None
    tools: Tools | None = None
    hub: Hub | None = None
    plan: Plan | None = None
    shell: str = "sh"
    command: tuple[str, ...] = ("python", "-m", "sdsetup")
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
        importing: ``"torch"`` to import that too, ``"classes"`` those of diffusers and transformers besides.
    """

    output: Path
    model: str = ""
    offline: bool = False
    converting: str = ""
    drawing: str = ""
    importing: str = ""

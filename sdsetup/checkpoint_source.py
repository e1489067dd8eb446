"""Find a model's checkpoint: in a folder or a file, in the Hub's cache, or remote on the Hub."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from conversions.events import Listener
from sdsetup import demo, disk_space, hub, single_file_source
from sdsetup.bootstrap.command_name import quoted
from sdsetup.errors import SetupError, UsageError

if TYPE_CHECKING:
    from conversions.checkpoint.folder import Checkpoint
    from conversions.plan import ConversionPlan


@dataclass(frozen=True, kw_only=True)
class CheckpointRequest:
    """A checkpoint to find, and how.

    Attributes:
        model: A folder, a single file or its address on the Hub, ``demo``, or a repository on the Hub.
        revision: Branch, tag or commit of the repository.
        variant: Weight variant to prefer, for example ``"fp16"``.
        safety_checker: Whether to include the safety checker.
        t5: Whether to include a T5 text encoder that the model can do without.
        allow_pickle: Whether to read weights that exist only as pickles.
        keep: Whether to download a repository into the Hub's cache instead of reading it remotely.
        base: For a single file: a checkpoint or a package that gives configurations, and what the file lacks.
        autoencoder: For a single file: a folder or a file whose autoencoder is used instead of the file's.
        prediction_type: For a single file: what its denoiser predicts; empty leaves it to the file.
    """

    model: str
    revision: str | None = None
    variant: str = ""
    safety_checker: bool = True
    t5: bool = True
    allow_pickle: bool = False
    keep: bool = True
    base: str = ""
    autoencoder: str = ""
    prediction_type: str = ""

    @property
    def without(self) -> tuple[str, ...]:
        """The components that are not wanted."""
        wanted = {"safety_checker": self.safety_checker, "t5": self.t5}
        return tuple(name for name, is_wanted in wanted.items() if not is_wanted)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint whose conversion can be planned; its large files may still be remote.

    Attributes:
        checkpoint: The checkpoint; configurations and tensor tables are readable.
        checkpoint_request: The request it answers.
        download: Files yet to be downloaded; None when all are local.
    """

    checkpoint: Checkpoint
    checkpoint_request: CheckpointRequest
    download: hub.DownloadPlan | None = None

    def fetch(self, output: Path, plan: ConversionPlan, listener: Listener) -> Checkpoint:
        """Download the checkpoint if it is to be kept, after checking free disk space.

        Args:
            output: Folder of the package to be.
            plan: Of its conversion.
            listener: Told of the progress.

        Returns:
            The checkpoint to convert.

        Raises:
            SetupError: ``disk.full``, or the download failed.
        """
        needs = [(output, self.bytes_to_write(output, plan))]
        if self.download is None or not self.checkpoint_request.keep:
            disk_space.require(needs)
            return self.checkpoint
        disk_space.require([*needs, (hub.cache_folder(), self.download.download_bytes)])
        hub.download(self.download, listener=listener)
        return _open_snapshot(self.download.model, self.checkpoint_request)

    def bytes_to_write(self, output: Path, plan: ConversionPlan) -> int:
        """Return the size of what is not linked; a disk without links is met by the conversion."""
        files = {name for part in self.checkpoint.components.values() for name in part.weights.files}
        paths = [path for name in files if (path := self.checkpoint.storage.path_of(name)) is not None]
        if all(disk_space.same_volume(path, output) for path in paths):
            return plan.copied_bytes
        return plan.package_bytes

    @property
    def using(self) -> AbstractContextManager[object]:
        """Context manager for reading the checkpoint; stops remote reads at its end."""
        storage = self.checkpoint.storage
        return storage if isinstance(storage, hub.HubStorage) else nullcontext()


def find(checkpoint_request: CheckpointRequest, listener: Listener) -> Source:
    """Find a checkpoint; large files are downloaded only if its weights are pickles.

    Raises:
        SetupError: The model cannot be found or accessed.
        ConversionError: The checkpoint cannot be converted.
    """
    from conversions.checkpoint.folder import open_checkpoint, open_folder

    if (address := single_file_source.file_on_hub(checkpoint_request.model)) is not None:
        path, repo_id, commit = single_file_source.fetch(address, checkpoint_request.revision, listener)
        return _single_file(path, checkpoint_request, listener, origin=repo_id, commit=commit)
    single_file_source.refuse_other_sites(checkpoint_request.model)
    given = Path(checkpoint_request.model).expanduser()
    _refuse_package(given)
    if given.is_file():
        return _single_file(given, checkpoint_request, listener)
    _only_for_files(checkpoint_request)
    ref = hub.resolve(checkpoint_request.model, checkpoint_request.revision, listener=listener)
    if isinstance(ref, hub.LocalModel):
        return _readable(
            open_folder(ref.path, variant=checkpoint_request.variant, without=checkpoint_request.without),
            checkpoint_request,
            listener,
        )
    if isinstance(ref, hub.DemoModel):
        checkpoint = open_folder(
            demo.checkpoint_path(),
            origin=demo.ORIGIN,
            variant=checkpoint_request.variant,
            without=checkpoint_request.without,
        )
        return Source(checkpoint=checkpoint, checkpoint_request=checkpoint_request)
    plan = hub.plan(
        ref,
        variant=checkpoint_request.variant,
        without=checkpoint_request.without,
        allow_pickle=checkpoint_request.allow_pickle,
        listener=listener,
    )
    if plan.pickles:
        if not checkpoint_request.keep:
            raise SetupError(
                "hub.pickle-needs-cache",
                f"The weights of {ref.repo_id} are pickles, which can only be read from a local copy.",
                "Run the same command without --no-cache.",
            )
        hub.download(plan, listener=listener)
        return _readable(_open_snapshot(ref, checkpoint_request), checkpoint_request, listener)
    if plan.download_bytes == 0 and checkpoint_request.keep:
        return Source(
            checkpoint=_open_snapshot(ref, checkpoint_request), checkpoint_request=checkpoint_request
        )
    checkpoint = open_checkpoint(
        hub.HubStorage(ref, plan.files, listener),
        origin=ref.repo_id,
        commit=ref.commit,
        variant=checkpoint_request.variant,
        without=checkpoint_request.without,
    )
    return Source(checkpoint=checkpoint, checkpoint_request=checkpoint_request, download=plan)


def _single_file(
    path: Path,
    checkpoint_request: CheckpointRequest,
    listener: Listener,
    *,
    origin: str = "",
    commit: str = "",
) -> Source:
    """Open a single file, with what its base gives."""
    from conversions.checkpoint.single_file import open_file

    readable = single_file_source.readable(
        path, allow_pickle=checkpoint_request.allow_pickle, listener=listener
    )
    autoencoder = checkpoint_request.autoencoder
    base = _base(checkpoint_request, listener) if checkpoint_request.base else None
    checkpoint = open_file(
        readable,
        base=base,
        autoencoder=single_file_source.autoencoder_at(autoencoder, listener) if autoencoder else None,
        prediction_type=checkpoint_request.prediction_type,
        without=checkpoint_request.without,
        origin=origin or path.name,
        commit=commit,
    )
    return Source(checkpoint=checkpoint, checkpoint_request=checkpoint_request)


def _base(checkpoint_request: CheckpointRequest, listener: Listener) -> Checkpoint:
    """Open what gives the rest of a single file: a package, or a checkpoint, which may be downloaded."""
    from conversions.package.base import package_as_checkpoint
    from conversions.package.layout import MANIFEST, open_package

    given = Path(checkpoint_request.base).expanduser()
    request = CheckpointRequest(
        model=checkpoint_request.base,
        allow_pickle=checkpoint_request.allow_pickle,
        safety_checker=False,
        t5=checkpoint_request.t5,
    )
    if (given / MANIFEST).is_file():
        return package_as_checkpoint(open_package(given), without=request.without)
    source = find(request, listener)
    if source.download is None:
        return source.checkpoint
    hub.download(source.download, listener=listener)
    return _open_snapshot(source.download.model, request)


def _refuse_package(given: Path) -> None:
    """Say of a package, which is what a conversion makes, what can be done with it.

    Raises:
        SetupError: ``convert.is-package``.
    """
    from conversions.package.layout import MANIFEST, open_package

    if not (given / MANIFEST).is_file() or not any(given.glob("*/model.onnx")):
        return
    package = open_package(given)
    raise SetupError(
        "convert.is-package",
        f"{given} is a package already, made of {package.origin} for {package.target}.",
        f'make images: sdsetup generate {quoted(str(given))} "PROMPT"; for another target or '
        "precision convert the checkpoint again; a single file takes a package as its --base.",
    )


def _only_for_files(checkpoint_request: CheckpointRequest) -> None:
    given = [
        option
        for option, value in (
            ("--base", checkpoint_request.base),
            ("--vae", checkpoint_request.autoencoder),
            ("--prediction-type", checkpoint_request.prediction_type),
        )
        if value
    ]
    if given:
        raise UsageError(
            "convert.only-single-files",
            f"{' and '.join(given)} can only be used with a single file yet; "
            f"{checkpoint_request.model} is none.",
            "Leave it out, or give a .safetensors file.",
        )


def _open_snapshot(model: hub.HubModel, checkpoint_request: CheckpointRequest) -> Checkpoint:
    from conversions.checkpoint.folder import open_checkpoint

    return open_checkpoint(
        hub.Snapshot(model),
        origin=model.repo_id,
        commit=model.commit,
        variant=checkpoint_request.variant,
        without=checkpoint_request.without,
    )


def _readable(checkpoint: Checkpoint, checkpoint_request: CheckpointRequest, listener: Listener) -> Source:
    """Rewrite pickled weights as safetensors, if the user allows pickles."""
    from conversions.checkpoint.pickles import holds_pickles, without_pickles

    if checkpoint_request.allow_pickle and holds_pickles(checkpoint):
        storage = checkpoint.storage
        marks = [
            f"{name} {storage.version(name)}"
            for part in checkpoint.components.values()
            for name in part.weights.names
        ]
        mark = hashlib.sha256("\n".join([storage.label, *marks]).encode()).hexdigest()[:16]
        folder = platformdirs.user_cache_path("sdsetup", appauthor=False) / "without-pickles" / mark
        checkpoint = without_pickles(
            checkpoint, folder, variant=checkpoint_request.variant, listener=listener
        )
    return Source(checkpoint=checkpoint, checkpoint_request=checkpoint_request)

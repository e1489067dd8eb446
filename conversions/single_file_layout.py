"""What a family says of its single files: which tensors are whose, and the small files they lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conversions.graph_kind import Config
from conversions.weights.expression import Tensors

if TYPE_CHECKING:
    from conversions.checkpoint.folder import Transform


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What decides between variants, beside the tensors' shapes.

    Attributes:
        metadata: Texts of the file's header, such as ``modelspec.title``.
        tensors: Names of all tensors.
        prediction_type: What the caller says that the denoiser predicts; empty where nobody said.
    """

    metadata: Mapping[str, str]
    tensors: frozenset[str]
    prediction_type: str = ""


@dataclass(frozen=True, kw_only=True)
class SmallFiles:
    """The small files of a pipeline.

    Attributes:
        index: ``model_index.json``.
        scheduler: ``scheduler_config.json``.
        components: Each component's ``config.json``.
        others: Further files, such as those of tokenizers, by name.
        notice: What a reader should know of them; empty for nothing.
    """

    index: Config
    scheduler: Config
    components: Mapping[str, Config]
    others: Mapping[str, bytes]
    notice: str = ""


@dataclass(frozen=True, kw_only=True)
class FileComponent:
    """A component in a single file.

    Attributes:
        name: The component.
        prefixes: What its tensors' names may begin with, the likeliest first. An empty one is a file that
            holds this component alone.
        marker: A tensor that every such component has, without prefix.
        names: Makes the transform to the names of diffusers and transformers, from the configuration.
    """

    name: str
    prefixes: tuple[str, ...]
    marker: str
    names: Callable[[Config], Transform]

    def prefix_in(self, tensors: frozenset[str]) -> str | None:
        """Return the prefix that the component has in a file; None where the file lacks it."""
        return next((each for each in self.prefixes if each + self.marker in tensors), None)


@dataclass(frozen=True, kw_only=True)
class SingleFileLayout:
    """The single files of a family.

    Attributes:
        components: In the order of the family's components.
        denoiser: The component that every file has, and that tells the family.
        recognise: Says of the denoiser's tensors, without prefix, how they differ from what the family has:
            nothing when the file is the family's.
        differs: Says of the denoiser's tensors, without prefix, how they differ from a configuration of it:
            nothing where weights and configuration belong together.
        small_files: The small files, from the denoiser's tensors and other facts.
    """

    components: tuple[FileComponent, ...]
    denoiser: str
    recognise: Callable[[Tensors], tuple[str, ...]]
    differs: Callable[[Tensors, Config], tuple[str, ...]]
    small_files: Callable[[Tensors, FileFacts], SmallFiles]

    def component(self, name: str) -> FileComponent:
        """Return a component by name."""
        return next(each for each in self.components if each.name == name)


@dataclass(frozen=True, kw_only=True)
class Select:
    """Take the tensors whose names begin with a prefix, without it.

    Attributes:
        prefix: Empty for all tensors.
    """

    prefix: str

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the tensors."""
        length = len(self.prefix)
        return {name[length:]: each for name, each in tensors.items() if name.startswith(self.prefix)}

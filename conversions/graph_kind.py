"""A kind of graph: how one ONNX graph is made from the configuration of one component class."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from conversions.typed_config import Field

if TYPE_CHECKING:
    import onnx_ir as ir

Config = Mapping[str, Any]

# "float" is the package's precision; the others are what they say whatever the precision.
TensorType = Literal["float", "float32", "int32", "bool"]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of a submodel.

    Attributes:
        name: The tensor's name, as diffusers and its successors call it.
        dtype: Element type; ``"float"`` follows the package's precision.
        shape: A number for a fixed dimension, a name for a free one. An expression such as ``"8*height"``
            tells what an output's dimension is; only plain names are free dimensions.
    """

    name: str
    dtype: TensorType
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Rename:
    """A checkpoint's older name for a tensor: ``pattern`` (a regular expression) becomes ``replacement``.

    Attributes:
        pattern: Regular expression.
        replacement: As :func:`re.sub` takes it.
        copy: Whether checkpoints may hold the weight under both names. Where they do, the numbers under this
            one are what the class computes with.
    """

    pattern: str
    replacement: str
    copy: bool = False


@dataclass(frozen=True, kw_only=True)
class WeightScale:
    """A factor that belongs into a weight so that float16 holds what is computed with it.

    Attributes:
        pattern: Regular expression of the weights' names.
        factor: A power of two: float32 results stay the same to the last bit.
    """

    pattern: str
    factor: float


_VOCABULARY = "vocab_size"


@dataclass(frozen=True, kw_only=True)
class GraphKind:
    """How an ONNX graph comes from the configuration of a component.

    A kind knows one class of diffusers or transformers and one choice of inputs and outputs. Which part a
    graph plays in a pipeline is the family's knowledge, not the kind's.

    Attributes:
        id: Short name, for example ``"clip_text"``; part of a graph's identity.
        version: Raise it when a change of this file makes stored graphs out of date.
        variant: Tells kinds of one id apart that differ in inputs or outputs; empty for the usual one.
        class_name: The component's class, as ``model_index.json`` and ``config.json`` name it.
        also: Other classes that hold the same model: with a head, say, that no graph needs.
        fields: Types, defaults and bounds of the configuration's fields.
        defaults: Configuration fields with the value that a config lacking them means.
        relevant: Picks what shapes the graph out of a configuration; for those with nested or dead parts.
        irrelevant: Configuration fields that do not change the graph.
        inputs: Input tensors from a configuration.
        outputs: Output tensors from a configuration.
        component_class: Returns the class of diffusers or transformers that the component is.
        create: Makes the component from a configuration, with weights of no meaning.
        wrap: Makes of the component the torch module whose positional inputs and outputs are the tensors
            above; parameters below its attribute ``model`` carry the checkpoint's names.
        reference: As ``wrap``, with the library's own forward, where ``wrap`` puts the layers together in
            another way; None where it does not. Verification compares with it.
        renames: Older tensor names, tried in this order after the name itself.
        quantizable: Whether weights of linear layers may have 4 or 8 bits.
        sensitive: Regular expressions of weights that are never quantised: results depend on them most.
        unused: Regular expressions of stored tensors that no graph needs: buffers that are computed today,
            and layers behind the last output.
        scales: Factors that weights are stored with in a package; what ``wrap`` gives allows for them, so
            such a kind has a ``reference``.
        vocabulary: The end of the name of the table whose rows are ``vocab_size``, where nothing else of the
            graph depends on it; empty for none.
        sizes: For each free dimension the size at which parity is measured; small, and none divides another
            by accident.
        traced_sizes: For each free dimension the size to trace at. Odd where the graph must fit every size.
        skip_layers: Leaves out a number of layers at the end of a graph, in place, for one session; None
            where that has no meaning.
        example: Realistic inputs where plain noise would not do: maps the name of an input to its maker,
            called with (config, shape, numpy Generator).
    """

    id: str
    class_name: str
    defaults: Config
    irrelevant: frozenset[str]
    inputs: Callable[[Config], tuple[TensorSpec, ...]]
    outputs: Callable[[Config], tuple[TensorSpec, ...]]
    component_class: Callable[[], Any]
    create: Callable[[Config], Any]
    wrap: Callable[[Any], Any]
    reference: Callable[[Any], Any] | None = None
    fields: tuple[Field, ...] = ()
    version: int = 1
    variant: str = ""
    also: tuple[str, ...] = ()
    renames: tuple[Rename, ...] = ()
    unused: tuple[str, ...] = ()
    scales: tuple[WeightScale, ...] = ()
    quantizable: bool = False
    sensitive: tuple[str, ...] = ()
    vocabulary: str = ""
    relevant: Callable[[Config], Config] = dict
    sizes: Mapping[str, int] = field(default_factory=dict)
    traced_sizes: Mapping[str, int] = field(default_factory=dict)
    skip_layers: Callable[..., None] | None = None
    example: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def scale_of(self, weight: str) -> float:
        """Return the factor that a weight is stored with in a package; 1 for most."""
        return next((each.factor for each in self.scales if re.search(each.pattern, weight)), 1.0)

    def with_usual_vocabulary(self, config: Config) -> Config | None:
        """Return a configuration with the default vocabulary; None where the graph would be another."""
        usual = self.defaults.get(_VOCABULARY)
        if not self.vocabulary or config.get(_VOCABULARY, usual) == usual:
            return None
        return {**config, _VOCABULARY: usual}

    def resize_vocabulary(self, model: ir.Model, config: Config) -> None:
        """Give the table of tokens of a graph the rows of a configuration, in place."""
        import onnx_ir as ir

        for name, value in model.graph.initializers.items():
            if name.endswith(self.vocabulary) and value.shape is not None:
                value.shape = ir.Shape((config[_VOCABULARY], *value.shape[1:]))

    def graph_config(self, config: Config) -> dict[str, Any]:
        """Return the fields of ``config`` that shape the graph and differ from their default, sorted."""
        return {
            name: value
            for name, value in sorted(self.relevant(config).items())
            if not name.startswith("_")
            and name not in self.irrelevant
            and _plain(value) != _plain(self.defaults.get(name))
        }


def _plain(value: Any) -> Any:
    """Make tuples and lists equal."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value

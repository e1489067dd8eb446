"""Classes of diffusers and transformers by name, and components of them with weights of no meaning.

Kinds go to other processes, so they hold these functions with names bound, not functions of their own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from conversions.graph_kind import Config


def diffusers_class(name: str) -> Any:
    """Return a class of diffusers, which is imported for it.

    Raises:
        ImportError: The library is missing, or its version has no such class.
    """
    return _class_of("diffusers", name)


def diffusers_component(name: str, config: Config) -> Any:
    """Make a component of diffusers from its configuration."""
    return diffusers_class(name).from_config(dict(config))


def transformers_class(name: str) -> Any:
    """Return a class of transformers, which is imported for it.

    Raises:
        ImportError: The library is missing, or its version has no such class.
    """
    return _class_of("transformers", name)


def transformers_component(name: str, config_name: str, config: Config) -> Any:
    """Make a component of transformers from its configuration, which has a class of its own."""
    return transformers_class(name)(transformers_class(config_name)(**config))


def _class_of(library: str, name: str) -> Any:
    try:
        return getattr(import_module(library), name)
    except AttributeError as error:
        raise ImportError(f"cannot import name {name!r} from {library!r}") from error

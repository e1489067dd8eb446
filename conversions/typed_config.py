"""Read configurations by the type of each field: one clear error names the file, the field and the value.

A graph kind declares its fields next to its defaults; what they do not name passes through as it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from conversions.errors import ConversionError

Kind = Literal["whole number", "number", "true or false", "text", "object"]
Lists = Literal["never", "allowed", "always"]

# Deeper lists than diffusers has (transformer_layers_per_block: a list for each block).
_DEEPEST_LIST = 2
_LONGEST_LIST = 64
_LONGEST_TEXT = 200


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a configuration.

    Attributes:
        name: Its name in the JSON object.
        kind: What a value is.
        default: What ``null`` means, and a configuration without the field; a tuple for a list, which may be
            empty where this is, and so may a list in it where one in this is.
        nullable: Whether ``null`` is a value of its own, other than the default.
        lists: Whether a list of values, one for each block, stands in place of a value.
        minimum: The least value.
        maximum: The largest; far above every published model, and below what exhausts memory.
        choices: The texts that are known; empty for any.
        fields: The fields of an object.
    """

    name: str
    kind: Kind
    default: Any = None
    nullable: bool = False
    lists: Lists = "never"
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: Collection[str] = ()
    fields: tuple[Field, ...] = ()

    @property
    def description(self) -> str:
        """What a value must be, in words."""
        words = {
            "whole number": "a whole number",
            "number": "a number",
            "true or false": "true or false",
            "text": "a text",
            "object": "an object",
        }[self.kind]
        if self.choices:
            words = f"one of {', '.join(sorted(self.choices))}"
        if math.isfinite(self.minimum) and math.isfinite(self.maximum):
            words += f" from {self.minimum:g} to {self.maximum:.12g}"
        if self.lists != "never":
            words = f"a list, each {words}" if self.lists == "always" else f"{words}, or a list of such"
        return f"{words}, or null" if self.nullable else words


def whole(name: str, default: int | tuple[Any, ...] | None, least: int, most: int, **more: Any) -> Field:
    """Declare a field that is a whole number; null is one where there is no default."""
    more.setdefault("nullable", default is None)
    return Field(name=name, kind="whole number", default=default, minimum=least, maximum=most, **more)


def number(name: str, default: float | None, least: float, most: float, **more: Any) -> Field:
    """Declare a field that is a finite number; null is one where there is no default."""
    more.setdefault("nullable", default is None)
    return Field(name=name, kind="number", default=default, minimum=least, maximum=most, **more)


def flag(name: str, default: bool | None, **more: Any) -> Field:
    """Declare a field that is true or false; null is one where there is no default."""
    more.setdefault("nullable", default is None)
    return Field(name=name, kind="true or false", default=default, **more)


def text(name: str, default: str | tuple[str, ...] | None, **more: Any) -> Field:
    """Declare a field that is a text; null is one where there is no default."""
    more.setdefault("nullable", default is None)
    return Field(name=name, kind="text", default=default, **more)


def nested(name: str, fields: tuple[Field, ...]) -> Field:
    """Declare a field that is an object of fields, or null."""
    return Field(name=name, kind="object", nullable=True, fields=fields)


def read_config(fields: Iterable[Field], config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Check a configuration field by field.

    Args:
        fields: What is known of its fields.
        config: The JSON object.
        file: Where it comes from, for messages.

    Returns:
        The same object with the default in place of ``null`` where ``null`` is no value of its own. Fields
        that it lacks stay lacking, so that equal models keep equal names.

    Raises:
        ConversionError: ``config.invalid``; names the file, the field, the value and what it must be.
    """
    return _read(fields, config, file, "")


def _read(fields: Iterable[Field], config: Mapping[str, Any], file: str, above: str) -> dict[str, Any]:
    read = dict(config)
    for field in fields:
        if field.name not in config:
            continue
        value = config[field.name]
        if value is None and not field.nullable and field.default is not None:
            read[field.name] = list(field.default) if isinstance(field.default, tuple) else field.default
        elif value is None and field.nullable:
            continue
        elif field.kind == "object" and isinstance(value, dict):
            read[field.name] = _read(field.fields, value, file, f"{above}{field.name}.")
        elif not _fits(field, value):
            raise ConversionError(
                "config.invalid",
                f"{file} says {above}{field.name} = {_shown(value)}; it must be {field.description}.",
                "Correct this field, or download the file again.",
            )
    return read


def _fits(field: Field, value: Any, depth: int = 0) -> bool:
    if isinstance(value, list | tuple):
        if field.lists == "never" or depth == _DEEPEST_LIST or len(value) > _LONGEST_LIST:
            return False
        if not value and field.default != () and not (depth and () in _listed(field.default)):
            return False
        return all(_fits(field, each, depth + 1) for each in value)
    if field.lists == "always" and depth == 0:
        return False
    if field.kind == "true or false":
        return isinstance(value, bool)
    if field.kind == "text":
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            return False
        return not field.choices or value in field.choices
    if isinstance(value, bool) or not isinstance(value, int if field.kind == "whole number" else int | float):
        return False
    return field.kind != "object" and field.minimum <= value <= field.maximum  # NaN lies between no two


def _listed(default: Any) -> tuple[Any, ...]:
    return default if isinstance(default, tuple) else ()


def _shown(value: Any) -> str:
    """Return a value as JSON writes it, cut short."""
    import json

    try:
        shown = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."

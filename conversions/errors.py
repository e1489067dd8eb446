"""The exception of this library whose text is meant for users."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Detail = str | tuple[str, ...]


class ConversionError(Exception):
    """A conversion cannot continue, for a reason the user can understand and act on.

    The library knows no command line: a front end finds the command to suggest by ``code``.

    Attributes:
        code: Stable dotted identifier, for example ``"weights.missing"``; callers may match on it.
        message: What happened, in one or two plain sentences.
        hint: What helps, in general words. Empty where that depends on the front end.
        details: Values that a front end may put into its own advice, by name; read-only.
    """

    def __init__(
        self, code: str, message: str, hint: str = "", details: Mapping[str, Detail] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = MappingProxyType(dict(details or {}))

    def __reduce__(self) -> tuple[type[ConversionError], tuple[str, str, str, dict[str, Detail]]]:
        """Keep every field when the error comes from another process."""
        return type(self), (self.code, self.message, self.hint, dict(self.details))

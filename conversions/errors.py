"""The one exception of this library that callers are meant to show to people."""

from __future__ import annotations


class ConversionError(Exception):
    """A conversion cannot go on, for a reason the user can understand and act on.

    Attributes:
        code: Stable dotted identifier, for example ``"weights.missing"``; callers may match on it.
        message: What happened, in one or two plain sentences.
        hint: What to do next. Empty when nothing can be done.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[ConversionError], tuple[str, str, str]]:
        """Keep all three texts when the error comes from another process."""
        return type(self), (self.code, self.message, self.hint)

"""Exceptions with a message for users and the next step.

Standard library only: the bootstrap in ``sdsetup.__main__`` uses it before anything is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class SetupError(Exception):
    """A failure that the user can understand and act on.

    Attributes:
        code: Stable dotted identifier, for example ``"hub.gated"``; scripts may match on it.
        message: What happened, in one or two plain sentences.
        hint: What to do next, usually a command to type. Empty when nothing can be done.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[SetupError], tuple[str, str, str]]:
        """Keep all three texts when the error comes from another process."""
        return type(self), (self.code, self.message, self.hint)


class UsageError(SetupError):
    """The command line asks for something that makes no sense; exit status 2."""


class InterruptedByUserError(SetupError):
    """The user pressed Ctrl-C; exit status 130. ``message`` says what was kept, and may be empty."""


@contextmanager
def saying_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Say after Ctrl-C what the block leaves behind.

    Args:
        kept: Looks at what is really there, and says so in a sentence; empty when nothing is to be said.

    Raises:
        InterruptedByUserError: Ctrl-C was pressed.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedByUserError("interrupted", kept()) from error

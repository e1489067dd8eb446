"""Exceptions with a message for users and the next step.

Standard library only: the bootstrap in ``sdsetup.__main__`` uses it before anything is installed.
"""

from __future__ import annotations


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


class UsageError(SetupError):
    """The command line is invalid; exit status 2."""

"""The one reason for skipping: this machine cannot hold the Windows root."""

from __future__ import annotations


class UnavailableError(Exception):
    """Root rights, a program or a package source is missing; the text says which and what would help."""

"""Durations as a person reads them."""

from __future__ import annotations

_MINUTES_FROM_SECONDS = 90


def in_words(seconds: float) -> str:
    """Write a time roughly.

    >>> in_words(43.2), in_words(200)
    ('about 45 s', 'about 3 min')
    """
    if seconds < _MINUTES_FROM_SECONDS:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    return f"about {round(seconds / 60)} min"

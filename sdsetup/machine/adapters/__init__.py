"""Graphics adapters, read from the system itself: one reader a platform, one value for all of them.

Standard library only. Every name comes from a driver and may hold anything: brackets, emoji, junk.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from conversions.providers.adapter_ranking import best_adapter
from sdsetup.machine.adapters.adapter import AMD, NVIDIA, VENDORS, Adapter

__all__ = ["AMD", "NVIDIA", "VENDORS", "Adapter", "choose", "read"]


def read() -> tuple[Adapter, ...]:
    """Read every adapter of this machine, in the system's own order.

    Raises:
        OSError: The system's interface failed.
    """
    if sys.platform == "win32":
        from sdsetup.machine.adapters import dxgi

        return dxgi.read()
    if sys.platform == "darwin":
        from sdsetup.machine.adapters import macos

        return macos.read()
    from sdsetup.machine.adapters import linux

    return linux.read()


def choose(adapters: Sequence[Adapter]) -> tuple[Adapter, str] | None:
    """Pick the adapter that images are made on when nobody names one, by ``best_adapter``.

    Returns:
        The adapter and the reason in words, or None when there is no hardware adapter.
    """
    best = best_adapter(adapters)
    if best is None:
        return None
    others = [adapter for adapter in adapters if adapter is not best and not adapter.software]
    if not others:
        return best, "it is the only hardware adapter"
    alike = [other for other in others if (other.integrated is True) == (best.integrated is True)]
    if not alike:
        return best, "it has memory of its own, the integrated one uses main memory"
    if best.rank is not None:
        return best, "the system calls it the fastest"
    if (best.vram_bytes or 0) > max(other.vram_bytes or 0 for other in alike):
        return best, "it has the most memory of its own"
    return best, "it is the system's first"

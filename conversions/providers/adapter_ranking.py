"""Rank adapters to pick the default GPU.

Software adapters (WARP, llvmpipe) are never the default; users have to name them. Discrete adapters rank
before integrated ones; ties are broken by the system's order by speed where it is known (DXGI's high
performance order), then by dedicated memory, then by the lower index.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Protocol, TypeVar

_SOFTWARE_IDS = frozenset({(0x1414, 0x8C)})
"""PCI ids of Microsoft's Basic Render Driver: WARP, as DXGI lists it."""
_SOFTWARE_NAMES = ("microsoft basic render", "llvmpipe", "swiftshader")


@dataclass(frozen=True, kw_only=True)
class AdapterRank:
    """Properties that rank an adapter.

    Attributes:
        index: The system's index of the adapter; DXGI's on Windows.
        software: Whether it is a software renderer.
        integrated: Whether it is part of the processor; None (unknown) counts as no.
        rank: The system's order by speed, 0 the fastest; None when unknown.
        memory_bytes: Dedicated memory; None when unknown.
    """

    index: int
    software: bool = False
    integrated: bool | None = None
    rank: int | None = None
    memory_bytes: int | None = None

    @property
    def order(self) -> tuple[bool, bool, float, int, int]:
        """Sort key; the best adapter comes first."""
        rank = inf if self.rank is None else self.rank
        return (self.software, self.integrated is True, rank, -(self.memory_bytes or 0), self.index)


class Ranked(Protocol):
    """Anything with an adapter rank: an adapter as the system or ONNX Runtime describes it."""

    @property
    def adapter_rank(self) -> AdapterRank:
        """Its rank."""


_Item = TypeVar("_Item", bound=Ranked)


def best_adapter(items: Iterable[_Item]) -> _Item | None:
    """Return the default adapter; None when there are only software adapters."""
    return min(
        (item for item in items if not item.adapter_rank.software),
        key=lambda item: item.adapter_rank.order,
        default=None,
    )


def is_software(name: str, vendor_id: int = 0, device_id: int = 0) -> bool:
    """Whether an adapter with this name and these PCI ids is a software renderer."""
    return (vendor_id, device_id) in _SOFTWARE_IDS or name.casefold().startswith(_SOFTWARE_NAMES)

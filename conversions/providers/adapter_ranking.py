"""The one rule by which an adapter is chosen when nobody names one; whoever chooses asks here.

A software adapter (WARP, llvmpipe) is never chosen: it has to be asked for. Of the others a discrete one
comes before an integrated one; among equals the system's own order by speed decides where it is known (DXGI's
by high performance), then memory of its own, then the lower number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Protocol, TypeVar

_SOFTWARE_IDS = frozenset({(0x1414, 0x8C)})
"""Microsoft's Basic Render Driver: WARP, as DXGI lists it."""
_SOFTWARE_NAMES = ("microsoft basic render", "llvmpipe", "swiftshader")


@dataclass(frozen=True, kw_only=True)
class AdapterRank:
    """What decides between adapters.

    Attributes:
        index: The system's own number; on Windows DXGI's.
        software: It is a program, not a device.
        integrated: It is part of the processor; None, when unknown, counts as not.
        rank: The system's order by speed, 0 the fastest; None when unknown.
        memory_bytes: Memory of its own; None when unknown.
    """

    index: int
    software: bool = False
    integrated: bool | None = None
    rank: int | None = None
    memory_bytes: int | None = None

    @property
    def order(self) -> tuple[bool, bool, float, int, int]:
        """Sorts the best first."""
        rank = inf if self.rank is None else self.rank
        return (self.software, self.integrated is True, rank, -(self.memory_bytes or 0), self.index)


class Ranked(Protocol):
    """Anything that has a standing: an adapter as the system or as ONNX Runtime describes it."""

    @property
    def adapter_rank(self) -> AdapterRank:
        """What decides between it and others."""


_Item = TypeVar("_Item", bound=Ranked)


def best_adapter(items: Iterable[_Item]) -> _Item | None:
    """Return the one to use when nobody names one; None when there is none but software."""
    return min(
        (item for item in items if not item.adapter_rank.software),
        key=lambda item: item.adapter_rank.order,
        default=None,
    )


def is_software(name: str, vendor_id: int = 0, device_id: int = 0) -> bool:
    """Tell whether an adapter of this name and these PCI numbers is a program."""
    return (vendor_id, device_id) in _SOFTWARE_IDS or name.casefold().startswith(_SOFTWARE_NAMES)

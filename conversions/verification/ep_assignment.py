"""Read which execution provider ran each node of a session."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Nodes of one session by execution provider.

    Attributes:
        provider: The requested provider.
        nodes: Nodes on each provider, by ONNX Runtime's names.
        elsewhere: Number of nodes on other providers than the requested one, by operator.
        seconds: Time spent on each provider in one measured run; empty when nothing was measured.
    """

    provider: str
    nodes: Mapping[str, int]
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def node_share(self) -> float:
        """Share of the nodes on the requested provider, 0 to 1."""
        return self.nodes.get(self.provider, 0) / max(sum(self.nodes.values()), 1)

    @property
    def time_share(self) -> float | None:
        """Share of the time spent on the requested provider; None when unknown.

        1 without measuring when every node is on the requested provider.
        """
        if set(self.nodes) == {self.provider}:
            return 1.0
        total = sum(self.seconds.values())
        return self.seconds.get(self.provider, 0.0) / total if total else None

    def joined(self, other: Placement) -> Placement:
        """Return the placement of these and other nodes of the same provider together."""
        return replace(
            self,
            nodes=Counter(self.nodes) + Counter(other.nodes),
            elsewhere=Counter(self.elsewhere) + Counter(other.elsewhere),
            seconds={
                name: self.seconds.get(name, 0.0) + other.seconds.get(name, 0.0)
                for name in {*self.seconds, *other.seconds}
            },
        )

    def measured(self, profile: Path) -> Placement:
        """Add the counts and times of an ONNX Runtime profile.

        ONNX Runtime's record of assignments omits nodes without a kernel that fell back to the CPU;
        the profile lists every kernel that ran, a fused graph counting as one.
        """
        seconds: defaultdict[str, float] = defaultdict(float)
        ran: defaultdict[str, set[str]] = defaultdict(set)
        operators: dict[str, str] = {}
        for event in json.loads(profile.read_text(encoding="utf-8")):
            arguments = event.get("args", {})
            provider = arguments.get("provider", "")
            if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time") and provider:
                seconds[provider] += float(event["dur"]) / 1e6
                ran[provider].add(str(event["name"]))
                if provider != self.provider:
                    operators[str(event["name"])] = arguments.get("op_name", "unknown")
        nodes = {name: max(self.nodes.get(name, 0), len(ran[name])) for name in {*self.nodes, *ran}}
        found = Counter(operators.values())
        elsewhere = {
            name: max(self.elsewhere.get(name, 0), found[name]) for name in {*self.elsewhere, *found}
        }
        return replace(self, nodes=nodes, elsewhere=elsewhere, seconds=dict(seconds))


def read_placement(session: Any, provider: str) -> Placement:
    """Read the provider of each node of an ONNX Runtime session.

    The session must have been made with ``session.record_ep_graph_assignment_info``.

    Args:
        session: The ``onnxruntime.InferenceSession``.
        provider: The requested provider.
    """
    nodes: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for group in session.get_provider_graph_assignment_info():
        nodes[group.ep_name] += len(group.get_nodes())
        if group.ep_name != provider:
            elsewhere.update(node.op_type for node in group.get_nodes())
    return Placement(provider=provider, nodes=dict(nodes), elsewhere=dict(elsewhere))


def add_profile(placement: Placement, session: Any) -> Placement:
    """End a session's profile, which must hold one run, and add its times; later runs are not profiled."""
    profile = Path(session.end_profiling())
    try:
        return placement.measured(profile)
    finally:
        profile.unlink(missing_ok=True)


def share_of_time(parts: Iterable[tuple[Placement, float]]) -> float | None:
    """Return the requested provider's share of the time; None when it is unknown for a session.

    Args:
        parts: Placement and total run time in seconds of each session.
    """
    weighted, total = 0.0, 0.0
    for placement, seconds in parts:
        if placement.time_share is None:
            return None
        weighted, total = weighted + placement.time_share * seconds, total + seconds
    return weighted / total if total else None


def describe_shares(placements: Iterable[Placement], time_share: float | None) -> str:
    """Describe the requested provider's share of the nodes and of the time of several sessions.

    For example "99.5% of 1,204 nodes, 99.9% of the time".
    """
    every = list(placements)
    total = sum(sum(each.nodes.values()) for each in every)
    own = sum(each.nodes.get(each.provider, 0) for each in every)
    text = f"{own / max(total, 1):.1%} of {total:,} nodes"
    return text if time_share is None else f"{text}, {time_share:.1%} of the time"

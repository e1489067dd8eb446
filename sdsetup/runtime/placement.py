"""Where a session's nodes really run, which is not always where they were meant to."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The nodes of one session by execution provider.

    Attributes:
        provider: The provider that was asked for.
        nodes: Nodes on each provider, by ONNX Runtime's names.
        seconds: Time spent on each provider in one measured run; empty when none was measured.
    """

    provider: str
    nodes: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def node_share(self) -> float:
        """Share of the nodes that the wanted provider runs, 0 to 1."""
        return self.nodes.get(self.provider, 0) / max(sum(self.nodes.values()), 1)

    @property
    def time_share(self) -> float | None:
        """Share of the time spent on the wanted provider; None when it is not known.

        Where every node is on one provider there is nothing to measure.
        """
        if set(self.nodes) == {self.provider}:
            return 1.0
        total = sum(self.seconds.values())
        return self.seconds.get(self.provider, 0.0) / total if total else None

    def measured(self, profile: Path) -> Placement:
        """Add what ONNX Runtime's profile of a run tells.

        Its record of assignments leaves out nodes that no kernel was found for and that fell to the CPU;
        the profile has every kernel that ran, a fused graph being one of them.
        """
        seconds: defaultdict[str, float] = defaultdict(float)
        ran: defaultdict[str, set[str]] = defaultdict(set)
        for event in json.loads(profile.read_text(encoding="utf-8")):
            provider = event.get("args", {}).get("provider", "")
            if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time") and provider:
                seconds[provider] += float(event["dur"]) / 1e6
                ran[provider].add(str(event["name"]))
        nodes = {name: max(self.nodes.get(name, 0), len(ran[name])) for name in {*self.nodes, *ran}}
        return replace(self, nodes=nodes, seconds=dict(seconds))


def node_counts(session: Any) -> dict[str, int]:
    """Count an ONNX Runtime session's nodes by provider.

    The session must have been made with ``session.record_ep_graph_assignment_info``.
    """
    counts: Counter[str] = Counter()
    for group in session.get_provider_graph_assignment_info():
        counts[group.ep_name] += len(group.get_nodes())
    return dict(counts)

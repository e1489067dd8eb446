"""How ``sdsetup verify --target`` shows where nodes run and what memory that takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from sdsetup.cli import output
from sdsetup.cli.memory import show_memory, size_in_words

if TYPE_CHECKING:
    from conversions.package.layout import Package
    from conversions.providers.ep_partition import PlacementReport
    from conversions.recipe import ImageSize
    from sdsetup.imaging.image_memory import ImageMemory

_SHOWN = 5


def check(package: Package, target: str, size: ImageSize, *, as_json: bool) -> bool:
    """Check a package for a target without running it, and show what was found.

    Args:
        package: The package.
        target: For example ``"directml"``.
        size: Of the image.
        as_json: Write JSON to stdout instead of tables to stderr.

    Returns:
        Whether every compute node has a kernel.
    """
    from conversions.pipeline_graphs import package_graphs
    from conversions.providers.ep_partition import check_graphs
    from conversions.providers.table import provider_for
    from sdsetup.imaging.image_memory import image_memory

    graphs = package_graphs(package).run_by(provider_for(target))
    reports = check_graphs(graphs, target, size)
    memory = image_memory(graphs, size)
    fit = not any(report.unfit for report in reports.values())
    if as_json:
        submodels = {name: report.as_dict() for name, report in reports.items()}
        output.emit_json(
            {"passed": fit, "target": target, "submodels": submodels, "memory": memory.as_dict()}
        )
    else:
        _show(reports, memory)
        verdict = f"{target} runs every node" if fit else f"{target} does not run every node"
        output.say(f"At {size.width}x{size.height}, {verdict}.", style="bold green" if fit else "bold red")
    return fit


def _show(reports: Mapping[str, PlacementReport], memory: ImageMemory) -> None:
    needs = {need.submodel: need for need in memory.forecast.needs}
    table = Table(box=None)
    for heading in ("submodel", "nodes", "fused graphs", "outside", "weights", "activations"):
        table.add_column(heading, justify="left" if heading == "submodel" else "right")
    for name, report in reports.items():
        outside = str(len(report.outside))
        need = needs[name]
        table.add_row(
            escape(name),
            str(len(report.nodes)),
            str(report.partitions),
            outside if report.whole else f"[yellow]{outside}[/]",
            size_in_words(need.on_device.weights_bytes),
            size_in_words(need.on_device.activation_bytes),
        )
    output.show(table)
    for name, report in reports.items():
        for node in report.outside[:_SHOWN]:
            output.say(
                f"{name}: {node.node} ({node.operator}) is {node.place}: {node.reason}", style="yellow"
            )
        if len(report.outside) > _SHOWN:
            output.say(f"{name}: and {len(report.outside) - _SHOWN} more")
    show_memory(memory)

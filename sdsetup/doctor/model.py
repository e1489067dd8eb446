"""The check of the model that is named."""

from __future__ import annotations

from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped
from sdsetup.doctor.registry import CheckContext, check
from sdsetup.doctor.shell import memory, size
from sdsetup.machine.facts import Plan

# These say something of the network or of this machine, which other findings judge; nothing of the model.
_OUT_OF_REACH = frozenset(
    {
        "hub.offline", "hub.unreachable", "hub.server", "hub.proxy", "hub.certificate", "hub.not-in-cache",
        "hub.rate-limited", "plan.packages", "",
    }
)  # fmt: skip


@check(
    "model.plan",
    "What the model needs",
    why="Models differ tenfold, and some checkpoints cannot be converted at all.",
    reads="plan machine",
    kinds=frozenset({"anything", "convert", "generate"}),
)
def plan(context: CheckContext) -> Verdict:
    """Say what converting the named model or drawing with it takes, or why neither can be done."""
    found = context.plan
    if not found.model:
        return skipped(
            "no model was named: --for convert OWNER/NAME plans its conversion, --for generate PACKAGE "
            "forecasts its images"
        )
    if found.error and found.code in _OUT_OF_REACH:
        return skipped(found.error)
    if found.error:
        return failure(
            found.error,
            Fix(
                says=found.hint or "See all that can be said about it",
                commands=(shell.sdsetup(context, *_closer_look(found)),),
            ),
        )
    images = (
        "images: known once its graphs are traced"
        if found.vram_bytes is None
        else f"images of {found.side} x {found.side}: {memory(found.vram_bytes)} of adapter memory"
    )
    if found.largest_side:
        images += f", at most {found.largest_side} x {found.largest_side} on this machine's adapter"
    if not found.converting:
        return ok(f"{images}; {memory(found.ram_bytes)} of main memory")
    return ok(
        f"downloads {size(found.download_bytes)}, writes {size(found.package_bytes)}, "
        f"takes {memory(found.ram_bytes)} of main memory; {images}"
    )


def _closer_look(found: Plan) -> tuple[str, ...]:
    if found.code == "graph.needs_pytorch":
        return ("install", "--torch")
    return ("convert", found.model, "--dry-run") if found.converting else ("verify", found.model)
